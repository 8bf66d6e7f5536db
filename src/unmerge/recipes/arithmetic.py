"""A merge with given masks, to the last bit: mergekit's own arithmetic in its dtype (mergekit 0.1.5, ``sparsify`` and ``merge_methods``).

    kept       m_i d_i times the rescale r_i = sum |d_i| / sum |m_i d_i|, a number of the dtype
    weighed    times the weight, a number of the dtype
    combined   their sum; or the sum of those that have its sign, which may be divided by the sum of their weights; times lambda
    merged     added to the base

Every arrow rounds to the dtype, and so is it done here: what a recipe explains is not a matter of tolerance.
"""

from __future__ import annotations

import torch
from torch import Tensor

from unmerge.recipes.weights import Rule


def rescale(change: Tensor, mask: Tensor) -> Tensor:
    """() what mergekit multiplies a kept change by, so that its L1 norm stays."""
    before, after = change.abs().sum(), (change * mask).abs().sum()
    return before / after if min(before, after) >= 1e-7 else torch.ones((), dtype=change.dtype)


def weighed(changes: Tensor, rescales: Tensor, weights: Tensor) -> Tensor:
    """(n, N) changes that are kept, times their rescales and weights, all in the dtype of the merge."""
    return (changes * rescales[:, None]) * weights[:, None]


def merged(base: Tensor, kept: Tensor, weights: Tensor, rule: Rule, factor: float = 1.0) -> Tensor:
    """(N,) the merged weights.

    Args:
        base: (N,).
        kept: (n, N) weighed changes, 0 where the mask drops them.
        weights: (n,) in the dtype of the merge.
        rule: how they are combined.
        factor: lambda.
    """
    if rule is Rule.SUM:
        mixed = kept.sum(0)
    else:
        agrees = (kept.sign() == (kept.sum(0) >= 0).to(kept.dtype) * 2 - 1).to(kept.dtype)
        mixed = (kept * agrees).sum(0)
        if rule is Rule.NORMALISED:
            divisor = (weights[:, None] * agrees).sum(0)
            mixed = mixed / torch.where(divisor == 0, torch.ones_like(divisor), divisor)
    if factor != 1:
        mixed = mixed * factor
    return base + mixed
