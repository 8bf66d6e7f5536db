"""What a combination is taken of, and how much of the result is seen: factors themselves, or products through the target's own subspaces.

Every kind is linear in what it takes of each adapter once masks are known: M = sum_i c_i R_i. Combined factors are stored as
they are. Of a combined product M only the leading part T = U S V^T is stored, and yet

    U^T M = S V^T    and    M V = U S

hold exactly, whatever was cut off: linear equations in the c_i.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from unmerge.recipes.case import half_spacing
from unmerge.recipes.combinations.case import AdapterCase
from unmerge.vectors import LowRank

#: singular values below this share of the largest are rounding
_ROUNDING = 1e-5


@dataclass(frozen=True)
class Piece:
    """One matrix that a combination is taken of.

    Attributes:
        raw: (n, rows, columns), the atoms', in float64.
        scale: (n,) what a part of each is multiplied by, beside its coefficient.
        side: pieces of one side share their coefficients: "a" and "b" for factors, "ba" for products.
        target: (N,) what is seen of the result.
        half: (N,) half the distance between values of the dtype that it is stored in, where it is stored as it is.
        left: (rows, k) and right: (columns, k), an orthonormal basis of what is seen; None where all is.
    """

    raw: Tensor
    scale: Tensor
    side: str
    target: Tensor
    half: Tensor | None = None
    left: Tensor | None = None
    right: Tensor | None = None

    def seen(self, parts: Tensor) -> Tensor:
        """(n, N) what is seen of (n, rows, columns) parts, scaled."""
        scaled = parts * self.scale[:, None, None]
        if self.left is None or self.right is None:
            return scaled.flatten(1)
        return torch.cat([(self.left.T @ scaled).flatten(1), (scaled @ self.right).flatten(1)], 1)

    @cached_property
    def places(self) -> Tensor:
        """(n, rows, columns) the place of every entry by magnitude in its matrix, the largest first."""
        order = torch.argsort(self.raw.abs().flatten(1), dim=1, descending=True)
        places = torch.empty_like(order).scatter_(1, order, torch.arange(order.shape[1]).expand_as(order))
        return places.reshape(self.raw.shape)

    @cached_property
    def tied(self) -> bool:
        """Whether magnitudes repeat, as 16-bit ones do: then which of the equals are kept is the library's."""
        return any(len(torch.unique(row)) < row.numel() for row in self.raw.abs().flatten(1))

    def kept(self, density: float | None) -> Tensor:
        """(n, rows, columns) PEFT's mask by magnitude: int(density x entries) of each matrix, all of them from density 1 on."""
        if density is None or density >= 1:
            return torch.ones_like(self.raw, dtype=torch.bool)
        count = int(density * self.raw[0].numel())
        if not self.tied:
            return self.places < count
        magnitudes = self.raw.abs().flatten(1)
        largest = [torch.topk(row, count, sorted=False).indices for row in magnitudes]  # of equals it keeps what PEFT keeps
        return torch.zeros_like(magnitudes, dtype=torch.bool).scatter_(1, torch.stack(largest), True).reshape(self.raw.shape)


def factors(case: AdapterCase, atoms: Sequence[str], tensors: Sequence[str]) -> list[Piece]:
    """Pieces of a combination of factors: coefficient sqrt(|w s|) on both sides, with the weight's sign on A."""
    pieces = []
    for tensor in tensors:
        wanted, pairs = case.wanted(tensor), [case.pair(atom, tensor) for atom in atoms]
        for side, target in (("a", wanted.a), ("b", wanted.b)):
            raw = torch.stack([torch.zeros(target.shape, dtype=torch.float64) if pair is None else getattr(pair, side).double() for pair in pairs])
            scale = torch.tensor([0.0 if pair is None else pair.scale**0.5 for pair in pairs], dtype=torch.float64)
            pieces.append(Piece(raw, scale, side, target.double().flatten(), half_spacing(target).flatten()))
    return pieces


def products(case: AdapterCase, atoms: Sequence[str], tensors: Sequence[str]) -> list[Piece]:
    """Pieces of a combination of products that was cut to the target's rank."""
    pieces = []
    for tensor in tensors:
        wanted, pairs = case.wanted(tensor), [case.pair(atom, tensor) for atom in atoms]
        left, values, right = LowRank(wanted.b.double(), wanted.a.double()).svd()
        stands = values > _ROUNDING * values.max()
        shape = (left.shape[0], right.shape[1])
        raw = torch.stack([torch.zeros(shape, dtype=torch.float64) if pair is None else pair.change.dense() for pair in pairs])
        pieces.append(product_piece(raw, left[:, stands], values[stands], right[stands]))
    return pieces


def product_piece(raw: Tensor, left: Tensor, values: Tensor, right: Tensor) -> Piece:
    """(n, rows, columns) products of atoms beside the leading part U (rows, k), s (k,), V^T (k, columns) of their combination."""
    target = torch.cat([(values[:, None] * right).flatten(), (left * values).flatten()])
    return Piece(raw, torch.ones(len(raw), dtype=torch.float64), "ba", target, None, left, right.T)
