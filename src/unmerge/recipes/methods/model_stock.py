"""model_stock: between the base and the average of fine-tunes, as far as the angles between them say (Jang et al. 2024, arXiv 2403.19522).

    t = k cos / (1 + (k - 1) cos)      cos: mean cosine between the changes of k models, in each tensor, or in each row (filter_wise)

What gives it away: equal coefficients for all atoms, and t that follows from them. There is nothing to fit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from unmerge.recipes.case import Case
from unmerge.recipes.polish import ordered, plausible
from unmerge.recipes.recipe import BASE, Input, Recipe


def candidates(case: Case, atoms: Sequence[str]) -> Iterator[Recipe]:
    """Every model as the base, the base itself first; angles by tensor and by row."""
    for base in (BASE, *atoms):
        models = [model for model in atoms if model != base] if base == BASE else [*(model for model in atoms if model != base), BASE]
        if len(models) < 2:
            continue
        for by_row in (False, True):
            shared = {"filter_wise": True} if by_row else {}
            recipe = Recipe("model_stock", tuple(Input(model) for model in models), base, shared, case.dtype_name)
            if plausible(case, recipe):
                yield ordered(case, recipe, case.quick[-1:])
