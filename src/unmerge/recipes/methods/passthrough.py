"""passthrough: one model as it is, or times a scale.

What gives it away: equality; or each tensor is one model's, times a number that may differ by layer and module.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import Tensor

from unmerge.recipes.case import Case
from unmerge.recipes.combination import Combination, combines
from unmerge.recipes.patterns import pattern
from unmerge.recipes.recipe import BASE, Input, Recipe
from unmerge.recipes.settle import SLACK, Patterns, read_off, settled


def candidates(case: Case, atoms: Sequence[str]) -> Iterator[Recipe]:
    """An atom alone (an adapter merged into the base, or a checkpoint under another name), or the base, where there is no atom."""
    for atom in atoms:
        yield Recipe("passthrough", (Input(atom),), dtype=case.dtype_name)
    model = atoms[0] if atoms else BASE
    if len(atoms) > 1 or not combines(case, atoms):
        return

    def reading(_: str, combined: Combination) -> tuple[Tensor, Tensor]:
        return 1 + combined.stretch[:, None], combined.stretch_errors[:, None]

    found = read_off(case, atoms, ["scale"], reading)
    shape = pattern(found.get("scale", {}), case.inputs.layers, SLACK[case.dtype])
    if shape is None or shape.setting == 1:
        return

    def build(patterns: Patterns) -> Recipe:
        return Recipe("passthrough", (Input(model, {"scale": patterns["scale"].setting}),), dtype=case.dtype_name)

    yield settled(case, build, {"scale": shape})
