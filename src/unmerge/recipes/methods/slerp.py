"""slerp: along the great circle between two models (Shoemake 1985, doi 10.1145/325334.325242).

    sin((1 - t) theta) / sin theta  A  +  sin(t theta) / sin theta  B        a straight line where cos theta > .9995

theta is the angle between the models as a whole, tensor by tensor. What gives it away: each tensor is a combination of two models
whose coefficients sum to a little more than 1, by as much as theta says. mergekit computes in float32, so that t acts unrounded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from unmerge.recipes.case import Case
from unmerge.recipes.combination import Combination, combines
from unmerge.recipes.methods.angles import fraction, pair
from unmerge.recipes.patterns import pattern
from unmerge.recipes.recipe import Input, Recipe
from unmerge.recipes.settle import SLACK, Patterns, read_off, settled

#: from this cosine on mergekit takes the straight line
_STRAIGHT = 0.9995


def candidates(case: Case, atoms: Sequence[str]) -> Iterator[Recipe]:
    """t from the two coefficients of each tensor, from either model to the other."""
    first, second = pair(atoms)
    if not second or not combines(case, atoms):
        return

    def reading(tensor: str, combined: Combination) -> tuple[torch.Tensor, torch.Tensor]:
        return fraction(case, (first, second), tensor, combined, straight=_STRAIGHT)

    found = read_off(case, atoms, ["t"], reading)
    shape = pattern(found.get("t", {}), case.inputs.layers, SLACK[case.dtype])
    if shape is None:
        return
    for base, other, way in ((first, second, shape), (second, first, shape.with_numbers([1 - value for value in shape.numbers]))):

        def build(patterns: Patterns, base: str = base, other: str = other) -> Recipe:
            return Recipe("slerp", (Input(base), Input(other)), base, {"t": patterns["t"].setting}, case.dtype_name)

        yield settled(case, build, {"t": way})
