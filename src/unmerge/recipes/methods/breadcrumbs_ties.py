"""breadcrumbs_ties: as breadcrumbs, and of what is kept only what has the elected sign is summed.

What gives it away: bands of magnitudes as under breadcrumbs, and no entry in which atoms of both signs take part.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from unmerge.recipes.case import Case
from unmerge.recipes.methods.additive import by_magnitude
from unmerge.recipes.recipe import Recipe
from unmerge.recipes.weights import Rule


def candidates(case: Case, atoms: Sequence[str]) -> Iterator[Recipe]:
    """Both ends of each band, then least squares over the entries that agree with the elected sign."""
    return by_magnitude(case, atoms, "breadcrumbs_ties", (Rule.ELECTED, Rule.NORMALISED), sparsified=True, outliers=True)
