"""What a target is in which no known atom is found: a fine-tune, a merge of unknown adapters, or noise."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

import torch

from unmerge.checkpoints import Difference
from unmerge.recipes.case import half_spacing, rows_of
from unmerge.vectors.delta import LARGE

#: matrices that are looked at, and how much of a low-rank change rounding may hide, over what it would by itself
_LOOKED, _SLACK = 4, 3.0
#: rows that are looked at for each direction, at least
_RANKS = 4


class Nature(Enum):
    """What the weights say of a change that nothing known explains."""

    NOISE = "noise: nothing stands out of it"
    ALL_WEIGHTS = "a fine-tune of all weights, or a merge of such"
    ONE_ADAPTER = "one adapter that is not in the dictionary, or a fine-tune of low rank"
    ADAPTERS = "several adapters that are not in the dictionary"
    MASKED = "a merge of what is not in the dictionary, masked or trimmed"

    @property
    def is_fine_tune(self) -> bool:
        """Whether it may have been trained at once."""
        return self in (Nature.ALL_WEIGHTS, Nature.ONE_ADAPTER)


def nature(target: Difference, changed: Sequence[str], rank: int | None, components: int | None) -> Nature:
    """Tell the nature of an unknown change.

    Args:
        target: the change.
        changed: the tensors that it changes.
        rank: above its noise, in most of the tensors.
        components: how many adapters of the dictionary's usual rank that is, at least.
    """
    if not rank:
        return Nature.NOISE
    matrices = [tensor for tensor in changed if len(target.shapes[tensor]) == 2]
    if len(matrices) < len(changed):
        return Nature.ALL_WEIGHTS
    looked = matrices[:: max(1, len(matrices) // _LOOKED)]
    if not all(_is_low_rank(target, tensor, rank) for tensor in looked):
        return Nature.MASKED
    return Nature.ONE_ADAPTER if components == 1 else Nature.ADAPTERS


def _is_low_rank(target: Difference, tensor: str, rank: int) -> bool:
    """Whether what is beyond a rank is what rounding to the target's dtype leaves: a twelfth of the squared spacing in every weight.

    Of a large matrix some rows are looked at, which have no higher rank than the whole.
    """
    height, width = target.shapes[tensor]
    step = max(1, height * width // LARGE)
    rows = slice(0, None, step if height // step > _RANKS * rank else max(1, height // (_RANKS * rank)))
    after, before = (rows_of(model, tensor, rows) for model in (target.tuned, target.base))
    values = torch.linalg.svdvals(after.double() - before.double())
    rounding = half_spacing(after).square().sum() / 3
    return float(values[rank:].square().sum()) <= _SLACK * float(rounding) + 1e-6 * float(values.square().sum())
