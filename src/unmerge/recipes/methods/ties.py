"""ties: keep the largest entries of each atom, elect a sign, average what agrees (Yadav et al. 2023, arXiv 2306.01708).

What gives it away: where the target moved in a direction that only one atom has, that atom's entry is among its largest; where
only one survives, its weight cancels and the target is the atom itself (times lambda). Weights are known up to scale, from
the entries where several survive.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from unmerge.recipes.case import Case
from unmerge.recipes.methods.additive import by_magnitude
from unmerge.recipes.recipe import Recipe
from unmerge.recipes.weights import Rule


def candidates(case: Case, atoms: Sequence[str]) -> Iterator[Recipe]:
    """Densities from the smallest entries kept, weights from the entries where several survive."""
    return by_magnitude(case, atoms, "ties", (Rule.NORMALISED, Rule.ELECTED), sparsified=True, outliers=False)
