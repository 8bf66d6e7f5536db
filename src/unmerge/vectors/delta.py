"""The change of one tensor, low-rank or dense.

A low-rank change is kept as its factors: dW = B A. Everything below works on the factors; the product is formed only
where somebody asks for it. So is the difference of two checkpoints: a few rows at a time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from types import EllipsisType
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from unmerge.vectors.threads import torch_threads

Shape = tuple[int, ...]

PROCESSOR = torch.device("cpu")
#: products over more weights than this are taken in float32, and decompositions by faster ways
LARGE = 1 << 18
#: eigenvalues of a Gram matrix below this share of the largest are rounding
_ROUNDING = 1e-15
#: entries of a dense change that are widened at a time (16 MiB in float32)
_BLOCK = 1 << 22


@dataclass(frozen=True)
class LowRank:
    """dW = B A, the scale of the adapter already in B.

    Attributes:
        b: (out, rank).
        a: (rank, in).
    """

    b: Float[Tensor, "out rank"]
    a: Float[Tensor, "rank in"]

    @property
    def shape(self) -> Shape:
        return (self.b.shape[0], self.a.shape[1])

    @property
    def rank(self) -> int:
        return self.a.shape[0]

    def dense(self) -> Float[Tensor, "out in"]:
        """The product, (out, in)."""
        return self.b @ self.a

    def svd(self, most: int | None = None) -> tuple[Float[Tensor, "out k"], Float[Tensor, " k"], Float[Tensor, "k into"]]:
        """U, s and V^T of the product in float64, largest first, without forming it.

        By QR of both factors. Of a change of more than LARGE weights by the factors' Gram matrices, ten times as fast: values below
        about 1e-7 of the largest are then rounding, and their directions meaningless.

        Args:
            most: how many values at most; all where none is given.
        """
        b, a = self.b.double(), self.a.double()
        if not is_large(self.shape):
            (q_b, r_b), (q_a, r_a) = torch.linalg.qr(b), torch.linalg.qr(a.T)
            left, values, right = torch.linalg.svd(r_b @ r_a.T, full_matrices=False)
            return q_b @ left[:, :most], values[:most], right[:most] @ q_a.T
        gram_b, gram_a = b.T @ b, a @ a.T
        with torch_threads(1):
            (back_b, r_b), (back_a, r_a) = root(gram_b), root(gram_a)
            left, values, right = torch.linalg.svd(r_b @ r_a.T, full_matrices=False)
        return b @ (back_b @ left[:, :most]), values[:most], (right[:most] @ back_a.T) @ a

    def scaled(self, factor: float) -> LowRank:
        """factor x dW."""
        return LowRank(self.b * factor, self.a)


@dataclass(frozen=True)
class Dense:
    """A change without structure: a difference of checkpoints, a bias, an expanded LoHa.

    Attributes:
        values: a tensor of any shape.
    """

    values: Float[Tensor, ...]

    @property
    def shape(self) -> Shape:
        return tuple(self.values.shape)

    def dense(self) -> Float[Tensor, ...]:
        """The values themselves."""
        return self.values

    def scaled(self, factor: float) -> Dense:
        """factor x dW."""
        return Dense(self.values * factor)


@runtime_checkable
class OnDemand(Protocol):
    """A tensor that is read when it is asked for."""

    @property
    def shape(self) -> torch.Size: ...

    @property
    def dtype(self) -> torch.dtype: ...

    @property
    def is_huge(self) -> bool:
        """Whether it should never be in memory as a whole."""
        ...

    def __getitem__(self, block: slice | EllipsisType) -> Tensor: ...


Rows = Tensor | OnDemand


@dataclass(frozen=True)
class Subtracted:
    """The difference of two tensors, each in its own dtype; taken in float32, or wider where one of them is.

    Attributes:
        after: the fine-tuned tensor.
        before: the base's, of the same shape.
        device: where the difference is taken.
    """

    after: Rows
    before: Rows
    device: torch.device = PROCESSOR

    @property
    def shape(self) -> Shape:
        return tuple(self.after.shape)

    def loaded(self) -> Subtracted:
        """The same in memory; what is too large for that stays where it is."""
        after, before = (side if isinstance(side, Tensor) or side.is_huge else side[:] for side in (self.after, self.before))
        return Subtracted(after, before, self.device)

    def on(self, device: torch.device) -> Subtracted:
        """The same, taken on a device: rows are moved as they are read, in their own dtype."""
        return replace(self, device=device)

    @property
    def values(self) -> Float[Tensor, ...]:
        """The whole difference, made now."""
        return self.written(torch.empty(self.shape, dtype=self.dtype, device=self.device))

    @property
    def dtype(self) -> torch.dtype:
        """Of the difference."""
        return torch.float64 if torch.float64 in (self.after.dtype, self.before.dtype) else torch.float32

    def written(self, place: Float[Tensor, ...]) -> Float[Tensor, ...]:
        """The whole difference, written to a tensor of its shape; a few rows of both are in memory beside it."""
        if not self.shape:
            return place.copy_(self.rows(slice(None)))
        for block in row_slices(self.shape):
            place[block] = self.rows(block)
        return place

    def rows(self, block: slice) -> Float[Tensor, ...]:
        """Some rows of it."""
        after, before = (side[block].to(self.device) for side in (self.after, self.before))
        if before.dtype == torch.float64:
            return after.double() - before
        difference, base = wide(after), wide(before)  # both: torch is twice as slow where it has to promote one
        # in place where widening has made a copy; what was read must not be written to
        return difference - base if after.dtype == difference.dtype else difference.sub_(base)

    def dense(self) -> Float[Tensor, ...]:
        """The whole difference."""
        return self.values

    def scaled(self, factor: float) -> Dense:
        """factor x dW."""
        return Dense(self.values * factor)


Delta = LowRank | Dense | Subtracted


def is_large(shape: Shape) -> bool:
    """Whether a tensor has more than LARGE weights."""
    return math.prod(shape) > LARGE


def loaded(delta: Delta) -> Delta:
    """A change in memory, to be worked on as a whole."""
    return delta.loaded() if isinstance(delta, Subtracted) else delta


def wide(values: Tensor) -> Tensor:
    """At least float32, which holds the difference of two 16-bit floats of like size exactly."""
    return values if values.dtype == torch.float64 else values.float()


def row_slices(shape: Shape, entries: int = _BLOCK) -> Iterator[slice]:
    """Cut a tensor into blocks of rows of about so many entries."""
    count = shape[0] if shape else 1
    step = max(1, entries // max(1, math.prod(shape[1:])))
    for start in range(0, count, step):
        yield slice(start, min(start + step, count))


def block_of(delta: Dense | Subtracted, block: slice) -> Float[Tensor, "rows columns"]:
    """Some rows of a dense change as a matrix (first dimension, all others), in its own precision."""
    if isinstance(delta, Subtracted):
        found = delta.rows(block)
        return found.reshape(len(found), -1)
    return delta.values.reshape(delta.shape[0] if delta.shape else 1, -1)[block]


def root(gram: Float[Tensor, "r r"], rounding: float = _ROUNDING) -> tuple[Float[Tensor, "r k"], Float[Tensor, "k r"]]:
    """(W, R) of a Gram matrix F^T F: F W is orthonormal, and F = (F W) R, but for eigenvalues that are rounding."""
    values, vectors = torch.linalg.eigh(gram)
    kept = values > rounding * values[-1:].clamp_min(torch.finfo(values.dtype).tiny)
    roots, vectors = values[kept].sqrt(), vectors[:, kept]
    return vectors / roots, roots[:, None] * vectors.T


def norm_squared(delta: Delta) -> float:
    """||dW||_F^2 in float64; for a low-rank change from its factors: sum((B^T B) o (A A^T))."""
    if isinstance(delta, LowRank):
        b, a = delta.b.double(), delta.a.double()
        return max(float(((b.T @ b) * (a @ a.T)).sum()), 0.0)
    return sum(square_of(block_of(delta, block)) for block in row_slices(delta.shape))


def square_of(values: Float[Tensor, "rows columns"]) -> float:
    """Its squared norm: rows in its own precision where it is large, added up in float64."""
    if not is_large(values.shape):
        return float(torch.linalg.vector_norm(values, dtype=torch.float64)) ** 2
    return float(torch.linalg.vector_norm(values, dim=1).double().square().sum())


def singular_values(delta: Delta) -> Float[Tensor, " k"]:
    """The singular values, largest first, in float64; low-rank changes are not expanded (QR of both factors).

    A tensor of more than two dimensions counts as (first, all others), one of fewer as a single column.
    """
    if isinstance(delta, LowRank):
        return delta.svd()[1]
    values: Tensor = torch.linalg.svdvals(delta.values.double().reshape(delta.shape[0] if delta.shape else 1, -1))
    return values
