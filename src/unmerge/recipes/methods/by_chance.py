"""What dare and della have in common: a merge with random masks becomes a recipe of the method that its masks speak for.

rule of combining    keeping flat over ranks    keeping more of the larger ones in each row
sum                  dare_linear                della_linear
elected              dare_ties                  della, not normalised
normalised           dare_ties, normalised      della
"""

from __future__ import annotations

from typing import Any

from unmerge.recipes.case import Case
from unmerge.recipes.drawn import Drawn
from unmerge.recipes.recipe import BASE, Input, Recipe
from unmerge.recipes.weights import Rule

#: epsilon from which masks depend on magnitude, mergekit's own, and how near one counts as it
_DEPENDS, _USUAL, _NEAR = 0.03, 0.15, 0.02


def recipe_of(case: Case, drawn: Drawn) -> Recipe:
    """The recipe that draws such masks, its settings as short decimals."""
    depends = float(drawn.epsilon.median()) > _DEPENDS
    inputs = []
    for place, atom in enumerate(drawn.atoms):
        settings = {"weight": drawn.typed[place], "density": _share(float(drawn.density[place]))}
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
    if drawn.rule is Rule.NORMALISED and drawn.factor != 1:
        shared["lambda"] = drawn.factor
    return Recipe(method, tuple(inputs), BASE, shared, case.dtype_name)


def _share(value: float) -> float:
    """A share of entries to two decimals; masks of some hundred thousand entries tell no more."""
    return min(max(round(value, 2), 0.01), 1.0)
