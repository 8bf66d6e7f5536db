"""linear: sum w_i W_i / sum w_i, of whole models (Wortsman et al. 2022, arXiv 2203.05482); with ``normalize: false`` it is not divided.

What gives it away: the change is a linear combination of the atoms' changes whose coefficients and the base's share sum to 1; where it
is not divided, to another number, by which the base itself is multiplied. mergekit sums in float32, so that weights act unrounded; a
common factor of them does not show, unless it is not divided.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch

from unmerge.recipes.case import Case
from unmerge.recipes.decimals import scaled, shortest
from unmerge.recipes.polish import DONE, best, ordered, plausible
from unmerge.recipes.recipe import BASE, Input, Recipe
from unmerge.recipes.weights import within_rounding

#: how far weights may be from fitted ones, relatively, and a share of the base that is none
_NEAR, _NONE = {torch.bfloat16: 1e-3, torch.float16: 1e-4, torch.float32: 1e-5, torch.float64: 1e-9}, 2e-3
#: scales of the weights that are tried, and those of them that are put into every order; so few models that all are
_SCALES, _ORDERED, _FEW = 250, 6, 3
#: how far weights that are not divided may be from fitted ones
_NEARER = (5e-3, 2e-3, 5e-4, 1e-4, 1e-5)


def candidates(case: Case, atoms: Sequence[str]) -> Iterator[Recipe]:
    """Coefficients within rounding, then scales at which all weights are short decimals; else a sum that is not divided."""
    yield from _average(case, atoms)
    yield from _sum(case, atoms)


def _sum(case: Case, atoms: Sequence[str]) -> Iterator[Recipe]:
    """Weights that do not sum to 1, as short decimals, nearer and nearer."""
    flat = case.flat(atoms, case.enough)
    found = within_rounding(torch.cat([flat.atoms, flat.base[None]]), flat.target, flat.half)
    *weights, stretch = (float(value) for value in found)
    rest = 1 + stretch - sum(weights)
    if abs(stretch) <= _NONE:
        return
    models, values = [*atoms, *([BASE] if abs(rest) > _NONE else [])], [*weights, *([rest] if abs(rest) > _NONE else [])]
    tried = [[_short(value, near) for value in values] for near in _NEARER] + [values]
    recipes = [replace(_recipe(case, models, typed), parameters={"normalize": False}) for typed in tried]
    if plausible(case, recipes[-1]):
        yield ordered(case, best(case, recipes, case.quick), case.quick[:1])


def _short(value: float, near: float) -> float:
    return shortest(value - near, value + near)


def _average(case: Case, atoms: Sequence[str]) -> Iterator[Recipe]:
    flat = case.flat(atoms)
    weights = within_rounding(flat.atoms, flat.target, flat.half)
    rest = 1 - float(weights.sum())
    models, values = list(atoms), [float(weight) for weight in weights]
    if abs(rest) > _NONE:
        models, values = [*models, BASE], [*values, rest]
    if not all(value > 0 for value in values):
        return
    fitted = _recipe(case, models, values)
    typed = [_recipe(case, models, found) for found in itertools.islice(scaled(values, _NEAR[case.dtype]), _SCALES)]
    if not plausible(case, fitted):
        return
    if len(models) <= _FEW:
        orders = [replace(recipe, inputs=inputs) for recipe in [fitted, *typed] for inputs in itertools.permutations(recipe.inputs)]
        yield best(case, _likely(case, orders), case.quick)
        return
    # the order of a sum shows in float32, and less than a wrong scale
    likely = _likely(case, [fitted, *typed])
    yield best(case, (ordered(case, recipe, case.quick[:1]) for recipe in likely), case.quick)


def _likely(case: Case, recipes: Sequence[Recipe]) -> Iterator[Recipe]:
    """Those that make a whole small tensor, one after the other; then the others that make most of it."""
    shares: dict[int, float] = {}
    for place, recipe in enumerate(recipes):
        shares[place] = case.identical(recipe, case.smallest)
        if shares[place] >= DONE:
            yield recipe
    for place in sorted(shares, key=lambda place: -shares[place])[:_ORDERED]:
        if shares[place] < DONE:
            yield recipes[place]


def _recipe(case: Case, models: Sequence[str], weights: Sequence[float]) -> Recipe:
    inputs = tuple(Input(model, {"weight": weight}) for model, weight in zip(models, weights, strict=True))
    return Recipe("linear", inputs, dtype=case.dtype_name)
