"""karcher: the Karcher mean of whole models on the sphere, tensor by tensor, equal weights (arXiv 2603.04972).

There is nothing to fit but which models take part, with the base or without. What gives it away: running it gives the target.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from unmerge.recipes.case import Case
from unmerge.recipes.polish import ordered, plausible
from unmerge.recipes.recipe import BASE, Input, Recipe


def candidates(case: Case, atoms: Sequence[str]) -> Iterator[Recipe]:
    """The atoms alone, and with the base as one more model, which mergekit appends."""
    for models in (tuple(atoms), (*atoms, BASE)):
        recipe = Recipe("karcher", tuple(Input(model) for model in models), dtype=case.dtype_name)
        if len(models) > 1 and plausible(case, recipe):
            yield ordered(case, recipe, case.quick[-1:])
