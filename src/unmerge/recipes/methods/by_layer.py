"""task_arithmetic and linear with weights that differ by layer or module: mergekit's gradients and filters.

What gives them away: each tensor is a combination of the atoms, and a pattern runs through the coefficients. Under linear they
are known up to a factor, tensor by tensor: what is found is in the measure that takes the fewest numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from unmerge.recipes.by_tensor.combination import Combination, combination, combines
from unmerge.recipes.by_tensor.settle import Patterns
from unmerge.recipes.by_tensor.weighted import Way, weighted
from unmerge.recipes.case import Case
from unmerge.recipes.polish import DONE
from unmerge.recipes.recipe import BASE, Input, Recipe

#: a share of the base that is none
_NONE = 2e-3
#: numbers that a pattern may have for each that tensors have: as many would be no pattern
_FEWER = 0.5


def candidates(case: Case, atoms: Sequence[str]) -> Iterator[Recipe]:
    """Whichever method takes fewer numbers first; nothing where all weights are constant."""
    if not atoms or not combines(case, atoms):
        return
    combined = [one for tensor in case.quick if bool(torch.isfinite((one := combination(case, atoms, tensor)).errors).all())]
    rest = max((float(_rest(one).abs().max()) for one in combined), default=0.0)
    models = (*atoms, BASE) if rest > _NONE else tuple(atoms)
    ways = {_sum(case, atoms): tuple(atoms), _average(case, models): models}
    numbers = {way: sum(len(pattern.numbers) for pattern in way.patterns(case, atoms, weighed).values()) for way, weighed in ways.items()}
    for way in sorted(ways, key=lambda way: numbers[way]):
        if len(ways[way]) < numbers[way] <= _FEWER * len(case.tensors) * len(ways[way]):
            for recipe in weighted(case, atoms, [way], ways[way]):
                yield recipe
                if case.identical(recipe, case.quick) >= DONE:
                    return


def _rest(combined: Combination) -> Tensor:
    """(lines,) the base's share among whole models."""
    return 1 + combined.stretch - combined.coefficients.sum(1)


def _sum(case: Case, atoms: Sequence[str]) -> Way:
    def reading(_: str, combined: Combination) -> tuple[Tensor, Tensor]:
        return combined.coefficients, combined.errors

    def build(patterns: Patterns) -> Recipe:
        inputs = tuple(Input(atom, {"weight": patterns[atom].setting}) for atom in atoms)
        return Recipe("task_arithmetic", inputs, BASE, dtype=case.dtype_name)

    return Way(build, reading, scale_free=False)


def _average(case: Case, models: Sequence[str]) -> Way:
    def reading(_: str, combined: Combination) -> tuple[Tensor, Tensor]:
        if BASE not in models:
            return combined.coefficients, combined.errors
        values = torch.cat([combined.coefficients, _rest(combined)[:, None]], dim=1)
        return values, torch.cat([combined.errors, combined.errors.norm(dim=1, keepdim=True)], dim=1)

    def build(patterns: Patterns) -> Recipe:
        inputs = tuple(Input(model, {"weight": patterns[model].setting}) for model in models)
        return Recipe("linear", inputs, dtype=case.dtype_name)

    return Way(build, reading)
