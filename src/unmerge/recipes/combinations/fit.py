"""Weights of a combination whose masks are known: least squares, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from unmerge.recipes.combinations.kind import Kind
from unmerge.recipes.combinations.looks import Piece
from unmerge.recipes.weights import within_rounding


@dataclass(frozen=True)
class Fit:
    """Weights by least squares.

    Attributes:
        weights: (n,).
        errors: (n,) standard errors.
        left: the share of the target's squared norm that is not explained.
    """

    weights: Tensor
    errors: Tensor
    left: float


def fit(pieces: Sequence[Piece], kind: Kind, density: float | None) -> Fit:
    """The weights under which a kind comes nearest to the target.

    Args:
        pieces: what is combined.
        kind: how.
        density: the share kept, None where the kind keeps all.
    """
    n = len(pieces[0].raw)
    left = total = 0.0
    found: dict[str, tuple[Tensor, Tensor]] = {}
    for side in dict.fromkeys(piece.side for piece in pieces):
        products, correlation = torch.zeros(n, n, dtype=torch.float64), torch.zeros(n, dtype=torch.float64)
        norm, count = 0.0, 0
        for piece in pieces:
            if piece.side == side:
                rows = piece.seen(kind.parts(piece.raw, piece.kept(density)))
                products += rows @ rows.T
                correlation += rows @ piece.target
                norm += float(piece.target.square().sum())
                count += piece.target.numel()
        inverse = torch.linalg.pinv(products, hermitian=True)
        coefficients = inverse @ correlation
        off = max(norm - float(coefficients @ correlation), 0.0)
        # of sums that cancel, what is left is known to double precision only
        variance = max(off, 1e-15 * norm) / max(count - n, 1)
        found[side] = coefficients, (inverse.diagonal().clamp(min=0) * variance).sqrt()
        left, total = left + off, total + norm
    return Fit(*_weights(found), left / total if total else 0.0)


def refined(pieces: Sequence[Piece], kind: Kind, density: float | None, found: Fit) -> Fit:
    """The fit with weights that keep every factor within the rounding to 16 bits, which least squares takes for noise."""
    sides: dict[str, tuple[Tensor, Tensor]] = {}
    for side in dict.fromkeys(piece.side for piece in pieces):
        here = [piece for piece in pieces if piece.side == side]
        if any(piece.half is None for piece in here):
            return found
        rows = torch.cat([piece.seen(kind.parts(piece.raw, piece.kept(density))) for piece in here], 1)
        half = torch.cat([piece.half for piece in here if piece.half is not None])
        weights = within_rounding(rows, torch.cat([piece.target for piece in here]), half)
        sides[side] = weights, torch.zeros_like(weights)
    return replace(found, weights=_weights(sides)[0])


def _weights(found: dict[str, tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Of products the coefficients are the weights; of factors they are sqrt(|w|) on each side, the sign on A."""
    if "ba" in found:
        return found["ba"]
    (a, a_error), (b, b_error) = found["a"], found["b"]
    return a * b.abs(), (a * b_error).hypot(b * a_error)
