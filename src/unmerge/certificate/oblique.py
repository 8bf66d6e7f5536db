"""Coefficients of present atoms beside unknown components.

Least squares blames known atoms for what unknown ones did. So the unknown part is projected off on both sides first:

    R = T - sum_i c_i V_i,    P, Q: projections off the column and row space of R's signal
    minimise  ||P (T - sum_i c_i V_i) Q||_F^2   over c;   R follows from c, and c from R, until both are still.

The signal of R lies within the target's own signal subspaces U, V (T = U S V^T + noise), so R is only ever needed as the small
matrix U^T R V, and the target is not read again. Its rank is at most what the present atoms leave of the target's. In a target
without noise that cap makes the answer exact: Wedderburn's rank reduction (1934) says that R then has rank(T) - rank(V_i).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unmerge.certificate.directions import Directions
from unmerge.certificate.evidence import TensorEvidence
from unmerge.certificate.systems import own_answer, own_precision, solve

Matrix = NDArray[np.float64]

#: rounds of c from R and R from c; coefficients are still when none moves by more than _STILL
_ROUNDS, _STILL = 200, 1e-9
#: singular values of U^T R V count as signal above this share of the target's largest where there is no noise
_ZERO = 1e-6


@dataclass(frozen=True)
class Oblique:
    """Coefficients of k atoms from m tensors. Where the target is noisy, ``refined`` makes more of them.

    Attributes:
        together: (k,) one coefficient of each atom in all tensors.
        by_tensor: (m, k) each tensor by itself; NaN for atoms that it says nothing about.
        precision: (m, k) one over the variance of ``by_tensor`` under the target's noise; without noise the squared norm that is left of the atom.
    """

    together: Matrix
    by_tensor: Matrix
    precision: Matrix


def oblique(evidence: Sequence[TensorEvidence], atoms: Sequence[int], directions: Sequence[Directions], start: Matrix) -> Oblique:
    """Estimate the coefficients of some atoms that are known to be present.

    Each answer is the better one of several, from ``start`` and from Wedderburn's coefficients: the one that leaves less above the rank it
    allows.

    Args:
        evidence: what the counted tensors say; m of them.
        atoms: the k present ones, by their place in the dictionary.
        directions: (m,) those of the present atoms alone, in each tensor, in the order of the evidence's.
        start: (k,) a first guess, for instance least squares.
    """
    tensors = [_Tensor.of(item, atoms, own) for item, own in zip(evidence, directions, strict=True)]
    together = _best(tensors, (start, _wedderburn(tensors, start)))
    own = np.full((len(tensors), len(start)), np.nan)
    precision = np.zeros_like(own)
    for row, tensor in enumerate(tensors):
        alone = _best([tensor], (together, _least_squares(tensor, together), _wedderburn([tensor], together)))
        system = tensor.system(alone)
        own[row], precision[row] = own_answer(*system), own_precision(system[0])
    return Oblique(together, own, precision)


@dataclass(frozen=True)
class _Tensor:
    """One tensor in the coordinates of the target's signal: k atoms, R directions of theirs, signal rank r.

    Attributes:
        values: (r,) the target's singular values.
        left, right: (r, R) the directions in the target's signal subspaces.
        scale: (R,) singular values of the atoms.
        along: (R,) u^T T v.
        gram_left, gram_right: (R, R).
        owners: (R, k) indicator.
        weight: one over the noise's variance, so that tensors can be added up.
        edge: singular values of what is left count above it.
        item, atoms: what the tensor says of all atoms, and the k places among them.
    """

    values: Matrix
    left: Matrix
    right: Matrix
    scale: Matrix
    along: Matrix
    gram_left: Matrix
    gram_right: Matrix
    owners: Matrix
    weight: float
    edge: float
    item: TensorEvidence
    atoms: tuple[int, ...]

    @staticmethod
    def of(item: TensorEvidence, atoms: Sequence[int], own: Directions) -> _Tensor:
        chosen = np.concatenate([np.flatnonzero(item.owner == atom) for atom in atoms]).astype(np.int64)
        largest = float(item.signal_values[0]) if len(item.signal_values) else 0.0
        return _Tensor(
            values=item.signal_values,
            left=item.left[:, chosen],
            right=item.right[:, chosen],
            scale=item.values[chosen],
            along=item.along[chosen],
            gram_left=(own.left.T @ own.left).numpy(),
            gram_right=(own.right.T @ own.right).numpy(),
            owners=(item.owner[chosen][:, None] == np.array(atoms)[None, :]).astype(np.float64),
            weight=1 / item.noise**2 if item.noise else 1.0,
            edge=max(item.edge, _ZERO * largest),
            item=item,
            atoms=tuple(atoms),
        )

    def left_over(self, coefficients: Matrix) -> Matrix:
        """(r, r) what the atoms leave, in the target's signal subspaces."""
        scale = (self.owners @ coefficients) * self.scale
        return np.diag(self.values) - (self.left * scale) @ self.right.T

    def signal_left(self, coefficients: Matrix) -> tuple[tuple[Matrix, Matrix], int, float]:
        """((x, y) bases (r, rho) of what is left above the edge, rho, squared norm of the signal beyond the rank allowed)."""
        left, values, right = np.linalg.svd(self.left_over(coefficients))
        rank = min(int((values > self.edge).sum()), self.item.rank_left(self.atoms, coefficients))
        return (left[:, :rank], right[:rank].T), rank, float((values[rank:] ** 2).sum())

    def system(self, coefficients: Matrix) -> tuple[Matrix, Matrix]:
        """((k, k), (k,)) normal equations with what is left projected off, over the noise."""
        (x, y), _, _ = self.signal_left(coefficients)
        off_left, off_right = x.T @ self.left, y.T @ self.right
        products = (self.gram_left - off_left.T @ off_left) * (self.gram_right - off_right.T @ off_right) * np.outer(self.scale, self.scale)
        target_right, target_left = x.T * self.values, self.values[:, None] * y  # x^T T V and U^T T y
        along = (
            self.along
            - np.einsum("aq,aq->q", off_left, target_right @ self.right)
            - np.einsum("aq,aq->q", target_left.T @ self.left, off_right)
            + np.einsum("aq,ab,bq->q", off_left, target_right @ y, off_right)
        )
        return self.weight * self.owners.T @ products @ self.owners, self.weight * self.owners.T @ (self.scale * along)


def _best(tensors: Sequence[_Tensor], guesses: Sequence[Matrix]) -> Matrix:
    """Of the answers from some guesses the one that leaves least above the rank it allows."""
    return min((_alternate(tensors, guess) for guess in guesses), key=lambda answer: _left_over(tensors, answer))


def _least_squares(tensor: _Tensor, otherwise: Matrix) -> Matrix:
    """(k,) of one tensor with nothing projected off."""
    products = tensor.gram_left * tensor.gram_right * np.outer(tensor.scale, tensor.scale)
    answer = own_answer(tensor.owners.T @ products @ tensor.owners, tensor.owners.T @ (tensor.scale * tensor.along))
    return np.where(np.isfinite(answer), answer, otherwise)


def _alternate(tensors: Sequence[_Tensor], coefficients: Matrix) -> Matrix:
    for _ in range(_ROUNDS):
        systems = [tensor.system(coefficients) for tensor in tensors]
        new = solve(sum((gram for gram, _ in systems), np.zeros(())), sum((right for _, right in systems), np.zeros(())))
        if np.abs(new - coefficients).max() <= _STILL * np.abs(new).max():
            return new
        coefficients = new
    return coefficients


def _left_over(tensors: Sequence[_Tensor], coefficients: Matrix) -> float:
    return sum(tensor.weight * tensor.signal_left(coefficients)[2] for tensor in tensors)


def _wedderburn(tensors: Sequence[_Tensor], otherwise: Matrix) -> Matrix:
    """(k,) median over tensors and directions of 1 / (s v^T T^+ u): exact without noise, whatever else is in the target."""
    result = otherwise.copy()
    for atom in range(len(result)):
        found: list[float] = []
        for tensor in tensors:
            own = tensor.owners[:, atom] > 0
            inverse = np.einsum("rq,rq->q", tensor.right[:, own] / tensor.values[:, None], tensor.left[:, own]) * tensor.scale[own]
            found.extend(inverse[inverse != 0].tolist())
        # the inverse of a strong direction is known best, and 1 / 0 is no coefficient: the median is taken of what has the sign of most
        if told := [1 / value for value in found if (value > 0) == (np.sum(np.sign(found)) >= 0)]:
            result[atom] = np.median(told)
    return result
