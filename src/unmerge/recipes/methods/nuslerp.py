"""nuslerp: slerp at t = w_2 / (w_1 + w_2), of two models or of their changes from a base; mergekit's own.

The angle is between two tensors as a whole (nuslerp_flatten, the default), between their rows, or between their columns
(nuslerp_row_wise, in spite of its name). What gives it away: two coefficients, line by line, that lie on the arc. Weights are
known up to a common factor. In bfloat16 mergekit rounds the angle and the coefficients as well.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from torch import Tensor

from unmerge.recipes.case import Case
from unmerge.recipes.combination import Combination, Lines, combines
from unmerge.recipes.methods.angles import fraction
from unmerge.recipes.patterns import Estimate, relative
from unmerge.recipes.recipe import BASE, Input, Recipe
from unmerge.recipes.settle import SLACK, Patterns, read_off, settled_scale

#: what the angle is between, as mergekit's settings say it
_LINES = {
    Lines.WHOLE: {},
    Lines.ROWS: {"nuslerp_flatten": False},
    Lines.COLUMNS: {"nuslerp_flatten": False, "nuslerp_row_wise": True},
}


def candidates(case: Case, atoms: Sequence[str]) -> Iterator[Recipe]:
    """t from both coefficients of each line, without a base and with it."""
    if len(atoms) != 2:
        return
    for base, lines in itertools.product((None, BASE), Lines):
        if not combines(case, atoms, lines):
            continue

        def reading(tensor: str, combined: Combination, base: str | None = base, lines: Lines = lines) -> tuple[Tensor, Tensor]:
            return fraction(case, (atoms[0], atoms[1]), tensor, combined, lines, origin=base)

        found = read_off(case, atoms, {"t": reading}, lines).get("t", {})

        def build(patterns: Patterns, base: str | None = base, lines: Lines = lines) -> Recipe:
            inputs = tuple(Input(atom, {"weight": patterns[atom].setting}) for atom in atoms)
            return Recipe("nuslerp", inputs, base, _LINES[lines], case.dtype_name)

        ways = {atoms[0]: {tensor: Estimate(1 - t.value, t.error) for tensor, t in found.items()}, atoms[1]: found}
        if patterns := relative(ways, case.inputs.layers, SLACK[case.dtype]):
            yield settled_scale(case, build, patterns)
