"""Between two models: from the coefficients of both to how far along the arc between them a target lies."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from unmerge.recipes.case import Case
from unmerge.recipes.combination import Combination, Lines
from unmerge.recipes.recipe import BASE


def pair(atoms: Sequence[str]) -> tuple[str, str]:
    """The two models that atoms leave to choose: one and the base, or two; empty names where there are more."""
    if len(atoms) == 1:
        return BASE, atoms[0]
    return (atoms[0], atoms[1]) if len(atoms) == 2 else ("", "")


def fraction(
    case: Case,
    models: tuple[str, str],
    tensor: str,
    combined: Combination,
    lines: Lines = Lines.WHOLE,
    straight: float = 1.0,
    origin: str | None = None,
) -> tuple[Tensor, Tensor]:
    """(lines, 1) t of c_A = sin((1 - t) theta) / sin theta, c_B = sin(t theta) / sin theta, and its standard error.

    Args:
        case: target and models.
        models: A and B.
        tensor: where.
        combined: its combination of the atoms among A and B.
        lines: those that theta is between.
        straight: a cosine from which on the arc counts as a straight line.
        origin: what theta is seen from, 0 by default.
    """
    one, other = combined.coefficients[:, 0], combined.coefficients[:, -1]
    if BASE in models:
        one = 1 + combined.stretch - other
    theta = angle(case, models, tensor, lines, origin)
    bent = torch.atan2(other * theta.sin(), one + other * theta.cos()) / theta
    t = torch.where(theta.cos() > straight, other / (one + other), torch.where(theta > 0, bent, torch.nan))
    return t[:, None], combined.errors.max(1, keepdim=True).values


def angle(case: Case, models: tuple[str, str], tensor: str, lines: Lines, origin: str | None) -> Tensor:
    """(lines,) the angle between two models, line by line."""
    ends = [lines.of(case.read(model, tensor)) for model in models]
    if origin is not None:
        seen_from = lines.of(case.read(origin, tensor))
        ends = [end - seen_from for end in ends]
    units = [end / end.norm(dim=1, keepdim=True).clamp(min=1e-300) for end in ends]
    chord = (units[0] - units[1]).norm(dim=1)
    return 2 * torch.asin((chord / 2).clamp(max=1.0))
