"""What dare and della have in common: a merge with random masks becomes a recipe of the method that its masks speak for.

rule of combining    keeping flat over ranks    keeping more of the larger ones in each row
sum                  dare_linear                della_linear
elected              dare_ties                  della, not normalised
normalised           dare_ties, normalised      della
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from unmerge.recipes.case import Case
from unmerge.recipes.recipe import BASE, Input, Recipe, Setting
from unmerge.recipes.weights import Rule

#: epsilon from which masks depend on magnitude, mergekit's own, and how near one counts as it
_DEPENDS, _USUAL, _NEAR = 0.03, 0.15, 0.02


@runtime_checkable
class Masks(Protocol):
    """What random masks say of n atoms.

    Attributes:
        atoms: names.
        typed: weights, as they may have been typed.
        rule: how kept changes are combined.
        density, epsilon: (n,) shares kept, and how much likelier than average the largest entries of a row are kept.
        factor: lambda, where the rule normalises.
        rescaled: whether what was kept was rescaled.
    """

    @property
    def atoms(self) -> tuple[str, ...]: ...
    @property
    def typed(self) -> tuple[Setting, ...]: ...
    @property
    def rule(self) -> Rule: ...
    @property
    def density(self) -> Tensor: ...
    @property
    def epsilon(self) -> Tensor: ...
    @property
    def factor(self) -> float: ...
    @property
    def rescaled(self) -> bool: ...


def recipe_of(case: Case, masks: Masks) -> Recipe:
    """The recipe that draws such masks, or that of the known part, its settings as short decimals."""
    depends = float(masks.epsilon.median()) > _DEPENDS
    inputs = []
    for place, atom in enumerate(masks.atoms):
        settings = {"weight": masks.typed[place], "density": _share(float(masks.density[place]))}
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
    if masks.rule is Rule.NORMALISED and masks.factor != 1:
        shared["lambda"] = masks.factor
    return Recipe(method, tuple(inputs), BASE, shared, case.dtype_name)


def _share(value: float) -> float:
    """A share of entries to two decimals; masks of some hundred thousand entries tell no more."""
    return min(max(round(value, 2), 0.01), 1.0)
