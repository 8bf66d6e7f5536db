"""What dare and della have in common: a merge with random masks becomes a recipe of the method that its masks speak for.

rule of combining    keeping flat over ranks    keeping more of the larger ones in each row
sum                  dare_linear                della_linear
elected              dare_ties                  della, not normalised
normalised           dare_ties, normalised      della
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from torch import Tensor

from unmerge.recipes.case import Case
from unmerge.recipes.recipe import BASE, Input, Recipe
from unmerge.recipes.weights import Rule

#: epsilon from which masks depend on magnitude, mergekit's own, and how near one counts as it
_DEPENDS, _USUAL, _NEAR = 0.03, 0.15, 0.02


class Masks(Protocol):
    """What masks say: of n atoms, how they are combined, (n,) shares kept and how these depend on ranks, and whether the rest was rescaled."""

    @property
    def atoms(self) -> tuple[str, ...]: ...
    @property
    def rule(self) -> Rule: ...
    @property
    def density(self) -> Tensor: ...
    @property
    def epsilon(self) -> Tensor: ...
    @property
    def rescaled(self) -> bool: ...


def recipe_of(case: Case, masks: Masks, weights: Sequence[float], factor: float = 1.0) -> Recipe:
    """The recipe that draws such masks, its settings as short decimals.

    Args:
        case: target and models.
        masks: what was read off.
        weights: as they may have been typed.
        factor: lambda.
    """
    depends = float(masks.epsilon.median()) > _DEPENDS
    inputs = []
    for place, atom in enumerate(masks.atoms):
        settings = {"weight": weights[place], "density": _share(float(masks.density[place]))}
        epsilon = float(masks.epsilon[place])
        if depends and abs(epsilon - _USUAL) > _NEAR:
            settings["epsilon"] = _share(epsilon)
        inputs.append(Input(atom, settings))
    shared: dict[str, Any] = {}
    if masks.rule is Rule.SUM:
        method = "della_linear" if depends else "dare_linear"
    else:
        method = "della" if depends else "dare_ties"
        if (masks.rule is Rule.NORMALISED) is not depends:
            shared["normalize"] = masks.rule is Rule.NORMALISED
    if not masks.rescaled:
        shared["rescale"] = False
    if masks.rule is Rule.NORMALISED and factor != 1:
        shared["lambda"] = factor
    return Recipe(method, tuple(inputs), BASE, shared, case.dtype_name)


def _share(value: float) -> float:
    """A share of entries to two decimals; masks of some hundred thousand entries tell no more."""
    return min(max(round(value, 2), 0.01), 1.0)
