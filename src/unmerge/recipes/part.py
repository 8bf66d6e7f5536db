"""The known part of a recipe, where something unknown was merged as well: no configuration makes the target, but these parameters acted."""

from __future__ import annotations

from dataclasses import dataclass

from unmerge.certificate.coefficients import INTERVALS, OBLIQUE
from unmerge.decomposition import Decomposition
from unmerge.decomposition.result import Component
from unmerge.recipes.case import Case
from unmerge.recipes.decimals import shortest
from unmerge.recipes.recipe import BASE, Input, Recipe
from unmerge.recipes.record import Acted, Proof, Rival

#: estimators that unknown components do not move
_SOUND = (INTERVALS, OBLIQUE)


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
    if contents.test.estimator not in _SOUND:
        return None
    return _summed(case, contents)


def _summed(case: Case, contents: Decomposition) -> Part:
    """Changes are summed, and what is unknown was projected off: the coefficients are the certificate's."""
    inputs = tuple(Input(component.name, {"weight": _typed(component)}) for component in contents.components)
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


def _typed(component: Component) -> float:
    return shortest(*component.interval) if component.interval else component.coefficient
