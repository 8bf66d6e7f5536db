"""The numbers that a floating-point dtype can hold: rounding to them, the cells around them, and which dtype some values were rounded to.

The grid of a checkpoint is told by its values, not by its file: a merge that was computed in bfloat16 and saved in float32 or float16
holds bfloat16's numbers still.
"""

from __future__ import annotations

import torch
from torch import Tensor

#: the narrower dtypes that values of a file may have been rounded to before, coarsest first
_NARROWER = (torch.bfloat16, torch.float16, torch.float32)
#: values that must all lie on a narrower grid before it is believed. Of numbers that were not rounded to it one in eight lies on the
#: grid of bfloat16 where float16 is stored (fewer elsewhere), so 64 are proof enough; set at the size of a small bias
_TELLING = 64


def rounded(values: Tensor, dtype: torch.dtype) -> Tensor:
    """Rounded to a dtype as a computation in float32 would, in float64."""
    return values.float().to(dtype).double()


def grid_of(values: Tensor, stored: torch.dtype) -> torch.dtype:
    """The coarsest dtype that holds all values exactly, at most as fine as the one that they are stored in."""
    step = torch.finfo(stored).eps
    telling = values[values != 0]
    for dtype in _NARROWER:
        if torch.finfo(dtype).eps > step and len(telling) >= _TELLING and bool((rounded(telling, dtype) == telling).all()):
            return dtype
    return stored


def cell(values: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Half the distance from numbers of a dtype to the next ones below and above: what lies between is rounded to them."""
    finest = torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps  # also around zero, whose exponent says nothing
    mantissa, exponent = torch.frexp(values.abs())
    step = torch.ldexp(torch.full_like(values, torch.finfo(dtype).eps), exponent - 1)
    step = torch.where(values == 0, finest, step.clamp_min(finest))
    inward = torch.where(mantissa == 0.5, step / 2, step).clamp_min(finest)  # towards zero from a power of two the grid is twice as fine
    down, up = torch.where(values > 0, inward, step), torch.where(values < 0, inward, step)
    return down / 2, up / 2
