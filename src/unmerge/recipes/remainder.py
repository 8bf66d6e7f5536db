"""What is left of a target once its known part is taken away.

Where changes were summed, that is what unknown adapters changed, a few directions, and rounding. Masks of any kind leave much more:
what they dropped of the known, entry by entry, has every rank.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from unmerge.recipes.case import Case, half_spacing, rows_of

#: so often the coarser of two roundings, the target's and that of the models as they are stored: every model that was merged brings its own,
#: times the square of its weight; and beside that so often the target's, whose sums in float32 round more than itself
_ROUNDINGS, _SUMS = 4.0, {torch.bfloat16: 0.0, torch.float16: 0.0, torch.float32: 64.0, torch.float64: 64.0}


def is_low_rank(case: Case, coefficients: Mapping[str, float], rank: int) -> bool:
    """Whether a target minus its known part is of low rank, within rounding.

    Args:
        case: target and models.
        coefficients: of the known part, by atom.
        rank: directions that what is unknown has in every matrix.
    """
    left = allowed = 0.0
    flat = case.flat(list(coefficients), case.enough)
    rest = flat.target - torch.tensor(list(coefficients.values()), dtype=torch.float64) @ flat.atoms
    for tensor, part in flat.parts.items():
        shape = case.wanted(tensor).shape
        if len(shape) == 2 and min(shape) > rank:
            left += float(torch.linalg.svdvals(rest[part].reshape(shape))[rank:].square().sum())
            half, stored = flat.half[part], half_spacing(rows_of(case.inputs.base, tensor, case.rows.get(tensor))).flatten()
            allowed += float((_ROUNDINGS * torch.maximum(half, stored).square() + _SUMS[case.dtype] * half.square()).sum()) / 3
    return allowed > 0 and left <= allowed
