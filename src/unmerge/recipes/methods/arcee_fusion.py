"""arcee_fusion: the base, with the entries of another model that matter most (Arcee AI, mergekit's own).

    importance = |B - A| KL(softmax of B's row, softmax of A's row); taken from its median + 1.5 interquartile ranges on

What gives it away: every weight is one model's or the other's. There is nothing to fit but which of two models is the base.
mergekit's mask is in float32, and so is what it writes, whatever dtype it computed in; of tensors above a million weights it
estimates the quantiles from a random sample.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from unmerge.recipes.by_tensor.angles import pair
from unmerge.recipes.case import Case
from unmerge.recipes.polish import plausible
from unmerge.recipes.recipe import Input, Recipe


def candidates(case: Case, atoms: Sequence[str]) -> Iterator[Recipe]:
    """Either model as the base; computed in the target's dtype, in the base's, or in float32, whose values all lie on the models' grid."""
    first, second = pair(atoms)
    if not second:
        return
    own = str(case.inputs.base.dtype(case.tensors[0])).removeprefix("torch.")
    for (base, other), dtype in itertools.product(((first, second), (second, first)), dict.fromkeys((case.dtype_name, own, "float32"))):
        recipe = Recipe("arcee_fusion", (Input(base), Input(other)), base, dtype=dtype)
        if plausible(case, recipe):
            yield recipe
