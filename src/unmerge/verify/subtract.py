"""The one sum that every subtraction is: W - sum_i c_i dW_i, before it is rounded."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from unmerge.vectors import Delta


def less(values: Tensor, changes: Iterable[tuple[Delta, float]]) -> Tensor:
    """A tensor less some changes with their coefficients, in float32 (float64 stays)."""
    result = values if values.dtype == torch.float64 else values.float()
    for delta, coefficient in changes:
        result = result - coefficient * delta.dense()
    return result
