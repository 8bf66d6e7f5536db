"""The known part of a recipe, where something unknown was merged as well: no configuration makes the target, but these parameters acted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from unmerge.certificate.coefficients import INTERVALS, OBLIQUE
from unmerge.decomposition import Decomposition
from unmerge.decomposition.result import Component
from unmerge.recipes.case import Case
from unmerge.recipes.chance.known_masks import KnownMasks, known_masks
from unmerge.recipes.chance.recipe_of import recipe_of
from unmerge.recipes.decimals import shortest
from unmerge.recipes.magnitude.known_bands import KnownBands, known_bands
from unmerge.recipes.recipe import BASE, Input, Recipe, parameters_of
from unmerge.recipes.record import Acted, Proof, Rival
from unmerge.recipes.remainder import is_low_rank
from unmerge.recipes.weights import Rule

#: estimators that unknown components do not move
_SOUND = (INTERVALS, OBLIQUE)
#: how near a lambda of 1 is
_NEAR_ONE = 2e-3


@dataclass(frozen=True)
class Part:
    """What is known of a recipe.

    Attributes:
        recipe: the method, and the known inputs with their settings.
        acted: by atom.
        unexplained: the share of the target's squared norm that the known part leaves.
        proof: of masks that were read off; None where there are none.
        rivals: methods that would leave the same of the known part.
    """

    recipe: Recipe
    acted: dict[str, Acted]
    unexplained: float
    proof: Proof | None
    rivals: list[Rival]


def known_part(case: Case, contents: Decomposition, looked: list[str]) -> Part | None:
    """The known part of what a target was merged from; None where the certificate names nothing that stands beside the unknown.

    Args:
        case: target and models.
        contents: what the certificate says of the target.
        looked: is told what was tried.
    """
    if not contents.components or contents.test is None:
        return None
    looked.append(f"the known part: {', '.join(component.name for component in contents.components)}")
    coefficients = {component.name: component.coefficient for component in contents.components}
    if contents.unexplained.rank is not None and is_low_rank(case, coefficients, contents.unexplained.rank):
        return _summed(case, contents)
    if (bands := known_bands(case, list(coefficients))) is not None:
        return _banded(case, contents, bands)
    if (masks := known_masks(case, list(coefficients))) is not None and masks.speaks:
        return _masked(case, contents, masks)
    return _unread(_summed(case, contents)) if contents.test.estimator in _SOUND else None


def _unread(part: Part) -> Part:
    """More is left than a sum of low-rank changes leaves, and no masks could be read."""
    apart = (
        "what is left has every rank: masks whose settings differ by layer or module, random masks under what is unknown nearly everywhere, "
        "or something unknown that was trained at full rank"
    )
    return replace(part, rivals=[Rival(method="dare_linear", parameters=parameters_of(part.recipe), identical_share=None, apart=apart), *part.rivals])


def _masked(case: Case, contents: Decomposition, found: KnownMasks) -> Part:
    """Random masks: where nothing unknown was kept, the target is a sum of what was kept of the known."""
    return _partial(contents, recipe_of(case, found), found.weights.tolist(), found.weight_error.tolist(), found)


def _banded(case: Case, contents: Decomposition, found: KnownBands) -> Part:
    """Masks by magnitude: where nothing unknown survived, the target is what the known alone make."""
    inputs = []
    for place, atom in enumerate(found.atoms):
        own = {"weight": _rounded(found.weights[place], 3 * found.errors[place]), "density": found.density[place]}
        inputs.append(Input(atom, own if found.method == "ties" else {**own, "gamma": found.gamma[place]}))
    recipe = Recipe(found.method, tuple(inputs), BASE, dtype=case.dtype_name)
    if abs(found.factor - 1) > _NEAR_ONE:
        recipe = recipe.with_parameters(**{"lambda": _rounded(found.factor, found.factor * _NEAR_ONE)})
    part = _partial(contents, recipe, found.weights, [3 * error for error in found.errors], found)
    return replace(part, rivals=[_elected(recipe)]) if found.rule is Rule.SUM and len(found.atoms) == 1 else part


def _elected(recipe: Recipe) -> Rival:
    apart = "what is unknown: under an election it drops what has the other sign"
    return Rival(method="breadcrumbs_ties", parameters=parameters_of(recipe), identical_share=None, apart=apart)


def _partial(contents: Decomposition, recipe: Recipe, weights: Sequence[float], errors: Sequence[float], found: KnownMasks | KnownBands) -> Part:
    return Part(
        recipe=recipe,
        acted={
            atom: Acted(coefficient=weight, interval=(weight - error, weight + error))
            for atom, weight, error in zip(found.atoms, weights, errors, strict=True)
        },
        unexplained=contents.unexplained.share,
        proof=Proof(reconstruction_error=contents.reconstruction_error, explained=found.explained, decoys=dict(found.decoys)),
        rivals=[],
    )


def _rounded(value: float, error: float) -> float:
    return shortest(value - error, value + error)


def _summed(case: Case, contents: Decomposition) -> Part:
    """Changes are summed, and what is unknown was projected off: the coefficients are the certificate's."""
    inputs = tuple(Input(component.name, {"weight": typed(component)}) for component in contents.components)
    return Part(
        recipe=Recipe("task_arithmetic", inputs, BASE, dtype=case.dtype_name),
        acted={part.name: Acted(coefficient=part.coefficient, interval=part.interval) for part in contents.components},
        unexplained=contents.unexplained.share,
        proof=None,
        rivals=[
            Rival(
                method="linear",
                parameters={"models": {part.name: {"weight": part.coefficient} for part in contents.components}},
                identical_share=None,
                apart="the weights of what is unknown: under linear all weights sum to 1",
            )
        ],
    )


def typed(component: Component) -> float:
    """The shortest decimal in a component's interval."""
    return shortest(*component.interval) if component.interval else component.coefficient
