"""task_arithmetic: W_0 + sum w_i delta_i (Ilharco et al. 2023, arXiv 2212.04089).

What gives it away: the change is a linear combination of the atoms' changes, to the last bit of rounding. mergekit rounds
the weights to the dtype of the merge, so that in bfloat16 they come back as the value that acted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from unmerge.recipes.case import Case
from unmerge.recipes.methods.additive import by_magnitude
from unmerge.recipes.recipe import Recipe
from unmerge.recipes.weights import Rule


def candidates(case: Case, atoms: Sequence[str]) -> Iterator[Recipe]:
    """Least squares within rounding; then the shortest decimals."""
    return by_magnitude(case, atoms, "task_arithmetic", (Rule.SUM,), sparsified=False, outliers=False)
