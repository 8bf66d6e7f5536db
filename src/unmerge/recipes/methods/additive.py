"""What the methods of mergekit's task-arithmetic family have in common, where masks are decided by magnitude.

    delta_i = W_i - W_0; keep by magnitude; times w_i; elect a sign or not; sum; divide by the weights of what agrees or not; times lambda
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor

from unmerge.recipes.bands import Ranked
from unmerge.recipes.case import Case, Flat
from unmerge.recipes.decimals import cell, nearby, scaled, shortest
from unmerge.recipes.polish import best, coordinates, ordered
from unmerge.recipes.recipe import BASE, Input, Recipe
from unmerge.recipes.weights import Rule, Weighing, fit

Move = Callable[[Recipe], Iterable[Recipe]]

#: how far, relatively, typed weights may be from fitted ones
_NEAR = {torch.bfloat16: 0.01, torch.float16: 2e-3, torch.float32: 2e-4, torch.float64: 1e-8}
#: what counts as a large residual while bands and weights are fitted in turn, over the target's size
_SCALES = (0.5, 0.3, 0.2, 0.1, 0.05, 0.02)
#: the share of the squared change that a candidate may leave
_UNEXPLAINED = 0.1
#: how far densities and gammas may be from those found
_REACH = {"density": 6e-3, "gamma": 2e-3}


def by_magnitude(case: Case, atoms: Sequence[str], method: str, rule: Rule, sparsified: bool, outliers: bool) -> Iterator[Recipe]:
    """The recipe of one method of the family.

    Args:
        case: target and models.
        atoms: those that are in the target.
        method: as mergekit names it.
        rule: how it combines what is kept.
        sparsified: whether the method keeps by magnitude.
        outliers: whether it drops the largest changes as well.
    """
    flat = case.flat(atoms, case.enough)
    kept, chosen = torch.ones_like(flat.atoms, dtype=torch.bool), ()
    size = float(flat.target[flat.target != 0].square().mean().sqrt())
    if sparsified:
        ranked = Ranked.of(flat)
        chosen = ranked.bands() or ()
        if not chosen:
            return
        for scale in _SCALES:
            chosen = tuple(band if outliers else band.from_the_top for band in chosen)
            kept = ranked.kept([band.settings for band in chosen])
            weighing = fit(flat, kept, rule, scale * size)
            chosen = ranked.sharpened(kept, weighing, scale * size)
        chosen = tuple(band if outliers else band.from_the_top for band in chosen)
        kept = ranked.kept([band.settings for band in chosen])
    weighing = fit(flat, kept, rule, _SCALES[-1] * size)
    if not _plausible(flat, kept, weighing):
        return
    names = ("density", "gamma") if outliers else ("density",)
    settings = [dict(zip(names, band.settings, strict=False)) for band in chosen] or [{} for _ in atoms]
    inputs = tuple(
        Input(atom, {"weight": typed(float(weight), case.dtype), **setting})
        for atom, weight, setting in zip(atoms, weighing.weights, settings, strict=True)
    )
    recipe = Recipe(method, inputs, BASE, dtype=case.dtype_name)
    if abs(weighing.factor - 1) > _NEAR[case.dtype]:
        recipe = recipe.with_parameters(**{"lambda": shortest(weighing.factor * (1 - 1e-3), weighing.factor * (1 + 1e-3))})
    yield _polished(case, recipe, weighing.weights if rule is Rule.NORMALISED else None, sparsified)


def _plausible(flat: Flat, kept: Tensor, weighing: Weighing) -> bool:
    """Whether the fit leaves little enough to be worth a search."""
    if not bool(torch.isfinite(weighing.weights).all()) or bool((weighing.weights == 0).any()):
        return False
    off = (weighing.made(flat.atoms * kept) - flat.target).abs()
    return float((off.clamp(min=flat.half) - flat.half).square().sum() / flat.target.square().sum()) < _UNEXPLAINED


def typed(value: float, dtype: torch.dtype) -> float:
    """The shortest decimal that acts as a fitted weight does."""
    low, high = cell(value, dtype)
    slack = abs(value) * _NEAR[dtype] / 10
    return shortest(min(low, value - slack), max(high, value + slack))


def _polished(case: Case, recipe: Recipe, direction: Tensor | None, sparsified: bool) -> Recipe:
    """Search the settings around an estimate; weights that are known up to scale only are put to a common one first."""
    quick = case.quick
    if direction is not None and len(recipe.inputs) > 1:
        recipe = best(case, _scales(recipe, [float(value) for value in direction], case.dtype), quick, start=recipe)
    recipe = ordered(case, recipe, quick)
    moves = [_other_weight(model.model, case.dtype) for model in recipe.inputs]
    if sparsified:
        moves += [_other_band(model.model) for model in recipe.inputs]
    return ordered(case, coordinates(case, recipe, moves, quick), quick)


def _scales(recipe: Recipe, direction: Sequence[float], dtype: torch.dtype, most: int = 80) -> Iterator[Recipe]:
    """The weights at scales that make them short decimals."""
    for values in itertools.islice(scaled(direction, _NEAR[dtype]), most):
        changed = recipe
        for model, value in zip(recipe.inputs, values, strict=True):
            changed = changed.with_input(model.model, weight=value)
        yield changed


def _other_band(atom: str) -> Move:
    """Other densities and gammas nearby, of two decimals and of three, both at once."""

    def move(recipe: Recipe) -> Iterator[Recipe]:
        present = {name: float(recipe.setting(atom, name)) for name in _REACH if recipe.setting(atom, name) is not None}
        near = [[(name, other) for other in _decimals(value, _REACH[name])] for name, value in present.items()]
        for changed in map(dict, itertools.product(*near)):
            if changed != present:
                yield recipe.with_input(atom, **changed)

    return move


def _decimals(value: float, reach: float) -> list[float]:
    """Numbers between 0 and 1 of two and three decimals near a value, and the value."""
    found = {value: None}
    for decimals in (2, 3):
        step = 10.0**-decimals
        for number in range(math.ceil((value - reach) / step), math.floor((value + reach) / step) + 1):
            if 0 <= (other := round(number * step, decimals)) <= 1:
                found.setdefault(other)
    return list(found)


def _other_weight(atom: str, dtype: torch.dtype) -> Move:
    """Other weights that act differently, the shortest decimal of each."""

    def move(recipe: Recipe) -> Iterator[Recipe]:
        value = float(recipe.setting(atom, "weight"))
        seen = {float(torch.tensor(value).to(dtype))}
        for other in nearby(value, _NEAR[dtype]):
            acts = float(torch.tensor(other).to(dtype))
            if acts not in seen:
                seen.add(acts)
                yield recipe.with_input(atom, weight=other)

    return move
