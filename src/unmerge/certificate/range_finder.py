"""The leading singular triples of a wide matrix, and its noise, without a full decomposition.

Block Krylov iteration (Musco and Musco 2015, arXiv 1504.05477; Halko, Martinsson and Tropp 2011, arXiv 0909.4061): from a random block
X of b directions, an orthonormal basis Q of [T X, (T T^T) T X, (T T^T)^2 T X], and the decomposition of Q^T T. 8 b columns are
multiplied with T in all, where a full decomposition costs about 4 min(out, into) of them and does not run in parallel.

A posteriori: u is a combination of Q's columns and v = T^T u / s is exact, so what is wrong with a triple is r = ||T v - s u|| alone.
A singular value of T lies within r of s; where all others are further from s than g, sin of the angle to the true direction is at most
r / g (Davis and Kahan 1970; for the largest r over the values kept and the gap to those that are left out, Wedin 1972).

Noise is read off a random block of rows and columns of the same aspect, after the signal is taken out of it: its singular values are
distributed as those of the whole matrix, up to the square root of the size.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from unmerge.vectors import root, torch_threads

#: directions to begin with, where it is not known how many there are, and at least; how many blocks they make
_BLOCK, _LEAST, _POWERS = 48, 8, 3
#: where more than this share of a matrix's directions is asked for, it is decomposed in full
_MOST = 0.3
#: the short side of the block that noise is read off
_SAMPLE = 384
#: directions whose square is below this share of the largest are float32's rounding
_ROUNDING = 1e-11
#: what is smaller than this share of a matrix is rounding
_NOTHING = 1e-5


@dataclass(frozen=True)
class Leading:
    """Leading singular triples of a matrix; k of them.

    Attributes:
        matrix: (out, into), float32.
        left, values, right: (out, k), (k,), (into, k); float64, largest first.
        rows, columns: (p,) and (q,), of the block that noise is read off.
        count: directions it began with.
    """

    matrix: Float[Tensor, "out into"]
    left: Float[Tensor, "out k"]
    values: Float[Tensor, " k"]
    right: Float[Tensor, "into k"]
    rows: Tensor
    columns: Tensor
    count: int

    @staticmethod
    def of(matrix: Float[Tensor, "out into"], count: int = _BLOCK, seed: int = 0) -> Leading:
        """Some of the leading triples.

        Args:
            matrix: float32, on whatever device.
            count: b, directions to begin with.
            seed: of the random block.
        """
        generator = torch.Generator().manual_seed(seed)
        short, (out, into) = min(matrix.shape), matrix.shape
        share = min(1.0, _SAMPLE / short)
        rows, columns = (torch.randperm(side, generator=generator)[: max(1, round(share * side))].sort().values for side in (out, into))
        left, values, right = _full(matrix) if _POWERS * count > _MOST * short else _krylov(matrix, count, generator)
        places = rows.to(matrix.device), columns.to(matrix.device)
        return Leading(matrix, left.double(), values.double(), right.double(), *places, count)

    @property
    def is_full(self) -> bool:
        """Whether these are all singular values."""
        return len(self.values) == min(self.matrix.shape)

    @cached_property
    def exhausted(self) -> bool:
        """Whether the matrix has no more than these: without them nothing but float32's rounding is left of the block."""
        return float(self.noise_block(len(self.values)).norm()) <= _NOTHING * float(self._block.norm())

    @staticmethod
    def enough_for(rank: int) -> int:
        """How many directions to begin with where so many are expected to be signal."""
        return max(_LEAST, -(-2 * (rank + _LEAST) // _POWERS))

    def covers(self, rank: int) -> bool:
        """Whether there are enough of them to tell that no more than so many are signal."""
        return self.is_full or self.exhausted or 2 * rank <= len(self.values)

    def more(self) -> Leading:
        """Twice as many."""
        return Leading.of(self.matrix, 2 * self.count)

    def only(self, rank: int) -> Leading:
        """The first ones."""
        return replace(self, left=self.left[:, :rank], values=self.values[:rank], right=self.right[:, :rank])

    def residuals(self) -> Float[Tensor, " k"]:
        """||T v - s u|| of each triple: how far its value may be off, at most."""
        products = self.matrix @ self.right.to(self.matrix.dtype)
        found: Tensor = torch.linalg.vector_norm(products.double() - self.left * self.values, dim=0)
        return found

    def noise_block(self, rank: int) -> Float[Tensor, "p q"]:
        """Some rows and columns of the matrix, without its leading directions; float64."""
        left, right = self.left[self.rows, :rank], self.right[self.columns, :rank]
        return self._block - (left * self.values[:rank]) @ right.T

    @cached_property
    def _block(self) -> Tensor:
        return self.matrix[self.rows][:, self.columns].double()


def _krylov(matrix: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    start = torch.randn((matrix.shape[1], count), generator=generator).to(matrix.device)
    blocks = [_orthonormal(matrix @ start)]
    for _ in range(_POWERS - 1):
        blocks.append(_orthonormal(matrix @ _back(matrix, blocks[-1])))
    basis = _orthonormal(torch.cat(blocks, 1))
    small = _back(matrix, basis).double()
    gram = small.T @ small
    with torch_threads(1):
        values, vectors = torch.linalg.eigh(gram)
    values, vectors = values.flip(0).clamp_min(0).sqrt(), vectors.flip(1)
    kept = values > 1e-7 * values[:1]  # none of a matrix that is zero
    values, vectors = values[kept], vectors[:, kept]
    return basis @ vectors, values, (small @ vectors) / values


def _back(matrix: Tensor, directions: Tensor) -> Tensor:
    """T^T Q, in the order that reads T row by row."""
    return (directions.to(matrix.dtype).T @ matrix).T


def _orthonormal(matrix: Tensor) -> Tensor:
    """An orthonormal basis, float64, of what the columns span beyond float32's rounding: by their Gram matrix, twice."""
    basis = matrix.double()
    for _ in range(2):
        gram = basis.T @ basis
        with torch_threads(1):
            back, _ = root(gram, _ROUNDING)
        basis = basis @ back
    return basis


def _full(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """All triples, by the Gram matrix of the short side: values below about 1e-7 of the largest are rounding."""
    if matrix.shape[0] > matrix.shape[1]:
        right, values, left = _full(matrix.T)
        return left, values, right
    wide = matrix.double()
    values, vectors = torch.linalg.eigh(wide @ wide.T)
    values, vectors = values.flip(0).clamp_min(0).sqrt(), vectors.flip(1)
    right = (wide.T @ vectors) / values.clamp_min(torch.finfo(values.dtype).tiny)
    return vectors, values, right
