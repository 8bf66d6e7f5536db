"""The change of one tensor, low-rank or dense.

A low-rank change is kept as its factors: dW = B A. Everything below works on the factors; the product is formed only
where somebody asks for it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

Shape = tuple[int, ...]


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

    def svd(self) -> tuple[Float[Tensor, "out k"], Float[Tensor, " k"], Float[Tensor, "k into"]]:
        """U, s and V^T of the product in float64, largest first, without forming it (QR of both factors)."""
        q_b, r_b = torch.linalg.qr(self.b.double())
        q_a, r_a = torch.linalg.qr(self.a.double().T)
        left, values, right = torch.linalg.svd(r_b @ r_a.T, full_matrices=False)
        return q_b @ left, values, right @ q_a.T

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


Delta = LowRank | Dense


def norm_squared(delta: Delta) -> float:
    """||dW||_F^2 in float64; for a low-rank change from its factors: sum((B^T B) o (A A^T))."""
    if isinstance(delta, LowRank):
        b, a = delta.b.double(), delta.a.double()
        return max(float(((b.T @ b) * (a @ a.T)).sum()), 0.0)
    return float(torch.linalg.vector_norm(delta.values, dtype=torch.float64)) ** 2


def singular_values(delta: Delta) -> Float[Tensor, " k"]:
    """The singular values, largest first, in float64; low-rank changes are not expanded (QR of both factors).

    A tensor of more than two dimensions counts as (first, all others), one of fewer as a single column.
    """
    if isinstance(delta, LowRank):
        return delta.svd()[1]
    values: Tensor = torch.linalg.svdvals(delta.values.double().reshape(delta.shape[0] if delta.shape else 1, -1))
    return values
