"""The atoms' singular directions in one tensor, and the surrogate targets that can be made of them.

Everything about surrogates happens in the coordinates of the atoms' own directions: their inner products (R x R, R the
summed ranks) are all that is needed, whatever the width of the tensor.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import linalg
from torch import Tensor

from unmerge.vectors import Delta, LowRank, block_of, device_for, is_large, row_slices

Matrix = NDArray[np.float64]

#: cosine between a direction and its counterpart in a stand-in, on either side; of the whole changes it is the square of that. More
#: than is seen between adapters to one base: a mean of .05 to .15
RELATED = 0.5
#: directions whose square is below this share of the largest are linear combinations of the others
_INDEPENDENT = 1e-10


@dataclass(frozen=True)
class Directions:
    """Singular value decompositions of the low-rank atoms in one tensor, side by side.

    Attributes:
        left: (out, R).
        right: (in, R).
        values: (R,) singular values.
        owner: (R,) which atom each direction belongs to.
        shape: (out, in).
    """

    left: Tensor
    right: Tensor
    values: Matrix
    owner: NDArray[np.int64]
    shape: tuple[int, int]

    @staticmethod
    def of(atoms: Sequence[tuple[int, LowRank]], most: int) -> Directions:
        """The leading directions of some atoms.

        Args:
            atoms: (index of the atom, its change of this tensor).
            most: directions kept of each.
        """
        left, right, values, owner = [], [], [], []
        for index, delta in atoms:
            u, s, vt = delta.svd(most)
            kept = int((s > 1e-6 * s[:1]).sum())  # none of a change that is zero
            left.append(u[:, :kept])
            right.append(vt[:kept].T)
            values.append(s[:kept].numpy())
            owner.append(np.full(kept, index))
        shape = (atoms[0][1].shape[0], atoms[0][1].shape[1])
        return Directions(torch.cat(left, 1), torch.cat(right, 1), np.concatenate(values), np.concatenate(owner), shape)

    def with_stand_ins(self, first: int, count: int, name: str) -> Directions:
        """Add directions of relatives that nobody has, for dictionaries too small to tell how alike adapters to this base are.

        Each is made from one atom in turn: every direction pair of it at cosine RELATED on either side, random otherwise.

        Args:
            first: the place of the first stand-in; the others follow.
            count: how many.
            name: of the tensor; decides the random directions.
        """
        if not count:
            return self
        generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
        owners = np.unique(self.owner)
        left, right, values, owner = [self.left], [self.right], [self.values], [self.owner]
        for place in range(count):
            own = np.flatnonzero(self.owner == owners[place % len(owners)])
            left.append(_relative(self.left[:, own], generator))
            right.append(_relative(self.right[:, own], generator))
            values.append(self.values[own])
            owner.append(np.full(len(own), first + place))
        return Directions(torch.cat(left, 1), torch.cat(right, 1), np.concatenate(values), np.concatenate(owner), self.shape)

    def along(self, delta: Delta) -> Matrix:
        """(R,) u^T T v of every direction pair with a change of the same tensor."""
        if isinstance(delta, LowRank):
            product = (self.left.T @ delta.b.double()) * (delta.a.double() @ self.right).T
            return np.asarray(product.sum(1).numpy())
        dtype = torch.float32 if is_large(self.shape) else torch.float64
        place = device_for(self.shape)
        left, right = self.left.to(place, dtype), self.right.to(place, dtype)
        along = torch.zeros(len(self.values), dtype=torch.float64, device=place)
        for block in row_slices(delta.shape):
            along += ((block_of(delta, block).to(place, dtype) @ right) * left[block]).sum(0, dtype=torch.float64)
        return np.asarray(along.cpu().numpy())

    def surrogates(self, weights: Matrix, rank: int) -> Matrix:
        """Containment of every direction in surrogate targets of a given signal rank.

        A surrogate is a weighted sum of some atoms, cut to its ``rank`` leading directions, or filled up to it with random
        ones: what a target would look like that holds those atoms and has the signal rank that was seen.

        Args:
            weights: (surrogates, atoms); 0 for an atom that is not in the surrogate.
            rank: the target's signal rank in this tensor.

        Returns:
            (surrogates, R).
        """
        gram_left, gram_right = (self.left.T @ self.left).numpy(), (self.right.T @ self.right).numpy()
        if is_large(self.shape) and rank >= max((np.isin(self.owner, np.flatnonzero(weight)).sum() for weight in weights), default=0):
            return self._uncut(weights, rank, gram_left, gram_right)
        result = np.zeros((len(weights), len(self.values)))
        for row, weight in enumerate(weights):
            inside = np.flatnonzero(weight[self.owner])
            scale = weight[self.owner[inside]] * self.values[inside]
            root_left, coordinates_left = _orthonormal(gram_left[np.ix_(inside, inside)], gram_left[inside])
            root_right, coordinates_right = _orthonormal(gram_right[np.ix_(inside, inside)], gram_right[inside])
            left, values, right = np.linalg.svd((root_left * scale) @ root_right.T, full_matrices=False)
            kept = min(rank, int((values > 1e-6 * values[0]).sum())) if len(values) else 0
            along = []
            for side, coordinates, width in ((left[:, :kept], coordinates_left, self.shape[0]), (right[:kept].T, coordinates_right, self.shape[1])):
                held = np.square(side.T @ coordinates).sum(0)
                # random directions hold, of what is left of a direction, their share of the remaining dimensions
                along.append(held + np.maximum(1 - held, 0) * (rank - kept) / max(width - kept, 1))
            result[row] = along[0] * along[1]
        return result

    def _uncut(self, weights: Matrix, rank: int, gram_left: Matrix, gram_right: Matrix) -> Matrix:
        """The same where no surrogate is cut: it spans all of its atoms' directions, so none of them is decomposed."""
        result = np.zeros((len(weights), len(self.values)))
        for row, weight in enumerate(weights):
            inside = np.flatnonzero(weight[self.owner])
            along = []
            for gram, width in ((gram_left, self.shape[0]), (gram_right, self.shape[1])):
                held, kept = _held(gram, inside)
                along.append(held + np.maximum(1 - held, 0) * (rank - kept) / max(width - kept, 1))
            result[row] = along[0] * along[1]
        return result


def _held(gram: Matrix, inside: NDArray[np.int64]) -> tuple[Matrix, int]:
    """(R,) the share of every direction that lies in the span of some, and the dimension of that span."""
    try:
        factor = np.linalg.cholesky(gram[np.ix_(inside, inside)])
        if np.diag(factor).min(initial=1.0) ** 2 < _INDEPENDENT:
            raise np.linalg.LinAlgError
        coordinates = linalg.solve_triangular(factor, gram[inside], lower=True, check_finite=False)
    except np.linalg.LinAlgError:  # some are combinations of others
        _, coordinates = _orthonormal(gram[np.ix_(inside, inside)], gram[inside])
    return np.square(coordinates).sum(0), len(coordinates)


def _relative(directions: Tensor, generator: torch.Generator) -> Tensor:
    """(width, r) unit directions, each at cosine RELATED to its own."""
    noise = torch.randn(directions.shape, generator=generator, dtype=torch.float64)
    mixed = RELATED * directions + (1 - RELATED**2) ** 0.5 * noise / noise.norm(dim=0)
    unit: Tensor = mixed / mixed.norm(dim=0)
    return unit


def _orthonormal(gram: Matrix, across: Matrix) -> tuple[Matrix, Matrix]:
    """Coordinates in an orthonormal basis of some directions: of themselves (k, r), and of all directions (k, R)."""
    values, vectors = np.linalg.eigh(gram)
    keep = values > _INDEPENDENT * values.max(initial=0.0)  # none, where all atoms of a surrogate are dense
    roots = np.sqrt(values[keep])
    return roots[:, None] * vectors[:, keep].T, (vectors[:, keep].T @ across) / roots[:, None]
