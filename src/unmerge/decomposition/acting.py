"""An atom as it acted: where its coefficient varies from part to part of the model, scaled so that one coefficient is true everywhere."""

from __future__ import annotations

from dataclasses import replace

from unmerge.decomposition.dictionary import Vector
from unmerge.decomposition.result import Component


def acting(atom: Vector, component: Component | None) -> Vector:
    """The atom that, times the component's coefficient, is what acted in every tensor.

    Args:
        atom: of the dictionary.
        component: of the target; None leaves the atom as it is. Where a tensor says nothing of it, its coefficient is taken.
    """
    if component is None or not component.profile or component.coefficient == 0:
        return atom
    return replace(atom, factors={tensor: own / component.coefficient for tensor, own in component.by_tensor.items()})
