"""What dare and della have in common: a merge with random masks becomes a recipe of the method that its masks speak for.

    rule of combining    keeping flat over ranks    keeping more of the larger ones in each row
    sum                  dare_linear                della_linear
    elected              dare_ties                  della, not normalised
    normalised           dare_ties, normalised      della
"""

from __future__ import annotations

from typing import Any

import torch

from unmerge.recipes.case import Case
from unmerge.recipes.decimals import scaled, shortest
from unmerge.recipes.drawn import Drawn
from unmerge.recipes.recipe import BASE, Input, Recipe
from unmerge.recipes.weights import Rule

#: epsilon from which masks depend on magnitude, mergekit's own, and how near one counts as it
_DEPENDS, _USUAL, _NEAR = 0.03, 0.15, 0.02
#: how far a weight may be from the one found, relatively, before standard errors
_LOOSE = {torch.bfloat16: 3e-3, torch.float16: 1e-3}


def recipe_of(case: Case, drawn: Drawn) -> Recipe:
    """The recipe that draws such masks, its settings as short decimals."""
    depends = float(drawn.epsilon.median()) > _DEPENDS
    weights = typed_weights(drawn, case.dtype)
    inputs = []
    for place, atom in enumerate(drawn.atoms):
        settings = {"weight": weights[place], "density": _share(float(drawn.density[place]))}
        epsilon = float(drawn.epsilon[place])
        if depends and abs(epsilon - _USUAL) > _NEAR:
            settings["epsilon"] = _share(epsilon)
        inputs.append(Input(atom, settings))
    shared: dict[str, Any] = {}
    if drawn.rule is Rule.SUM:
        method = "della_linear" if depends else "dare_linear"
    else:
        method = "della" if depends else "dare_ties"
        if (drawn.rule is Rule.NORMALISED) is not depends:
            shared["normalize"] = drawn.rule is Rule.NORMALISED
    if not drawn.rescaled:
        shared["rescale"] = False
    if drawn.rule is Rule.NORMALISED and abs(drawn.factor - 1) > 0.01:
        shared["lambda"] = shortest(drawn.factor * (1 - 3e-3), drawn.factor * (1 + 3e-3))
    return Recipe(method, tuple(inputs), BASE, shared, case.dtype_name)


def typed_weights(drawn: Drawn, dtype: torch.dtype) -> list[float]:
    """Short decimals within what is known of the weights; at a common scale where only that is."""
    loose = _LOOSE.get(dtype, 1e-5)
    values = [float(value) for value in drawn.weights]
    if drawn.rule is Rule.NORMALISED:
        return list(next(scaled(values, 2 * loose), tuple(values)))
    slack = [loose * value + 4 * float(error) for value, error in zip(values, drawn.weight_error, strict=True)]
    return [shortest(value - width, value + width) for value, width in zip(values, slack, strict=True)]


def _share(value: float) -> float:
    """A share of entries to two decimals; masks of some hundred thousand entries tell no more."""
    return min(max(round(value, 2), 0.01), 1.0)
