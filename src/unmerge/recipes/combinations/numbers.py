"""From estimates to what was typed."""

from __future__ import annotations

import torch

from unmerge.recipes.decimals import shortest

#: relative errors that estimates may have beside their standard errors
_SLACK = {torch.bfloat16: 2e-4, torch.float16: 3e-5, torch.float32: 2e-7, torch.float64: 1e-12}
_ERRORS = 6


def typed(value: float, error: float, dtype: torch.dtype) -> float:
    """The shortest decimal that is within a few standard errors of an estimate from numbers of a dtype."""
    reach = _ERRORS * error + _SLACK[dtype] * abs(value)
    return shortest(value - reach, value + reach)
