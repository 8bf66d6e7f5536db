"""breadcrumbs: of each atom drop the largest entries (gamma) and the smallest, sum the rest (Davari and Belilovsky 2023, arXiv 2312.06795).

What gives it away: the entries kept of an atom fill a band of magnitudes with an end at the top.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from unmerge.recipes.case import Case
from unmerge.recipes.methods.additive import by_magnitude
from unmerge.recipes.recipe import Recipe
from unmerge.recipes.weights import Rule


def candidates(case: Case, atoms: Sequence[str]) -> Iterator[Recipe]:
    """Both ends of each band, then least squares within rounding."""
    return by_magnitude(case, atoms, "breadcrumbs", (Rule.SUM,), sparsified=True, outliers=True)
