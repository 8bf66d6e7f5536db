"""nuslerp: slerp at t = w_2 / (w_1 + w_2), of two models or of their changes from a base; mergekit's own.

The angle is between two tensors as a whole (nuslerp_flatten, the default), between their rows, or between their columns
(nuslerp_row_wise, in spite of its name). What gives it away: two coefficients, line by line, that lie on the arc. Weights are
known up to a common factor. In bfloat16 mergekit rounds the angle and the coefficients as well.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from unmerge.recipes.case import Case
from unmerge.recipes.combination import Combination, Lines
from unmerge.recipes.methods.angles import fraction
from unmerge.recipes.methods.weighted import Way, weighted
from unmerge.recipes.recipe import BASE, Input, Recipe
from unmerge.recipes.settle import Patterns

#: what the angle is between, as mergekit's settings say it
_LINES: Mapping[Lines, Mapping[str, bool]] = {
    Lines.WHOLE: {},
    Lines.ROWS: {"nuslerp_flatten": False},
    Lines.COLUMNS: {"nuslerp_flatten": False, "nuslerp_row_wise": True},
}


def candidates(case: Case, atoms: Sequence[str]) -> Iterator[Recipe]:
    """t from both coefficients of each line, without a base and with it."""
    if len(atoms) == 2:
        yield from weighted(case, atoms, (_way(case, atoms, base, lines) for base, lines in itertools.product((None, BASE), Lines)))


def _way(case: Case, atoms: Sequence[str], base: str | None, lines: Lines) -> Way:
    def reading(tensor: str, combined: Combination) -> tuple[Tensor, Tensor]:
        t, error = fraction(case, (atoms[0], atoms[1]), tensor, combined, lines, origin=base)
        return torch.cat([1 - t, t], dim=1), error.expand(-1, 2)

    def build(patterns: Patterns) -> Recipe:
        inputs = tuple(Input(atom, {"weight": patterns[atom].setting}) for atom in atoms)
        return Recipe("nuslerp", inputs, base, _LINES[lines], case.dtype_name)

    return Way(build, reading, lines)
