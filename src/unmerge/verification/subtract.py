"""The one sum that every subtraction is: W - sum_i c_i dW_i, before it is rounded.

Where the first dimension is the vocabulary, W may have more rows than dW (tokens were added) or fewer (it was trimmed): the sum is of the rows
that both have, the others of W stay.
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

from unmerge.vectors import Delta, Shape, wide


def less(values: Tensor, changes: Iterable[tuple[Delta, float]]) -> Tensor:
    """A tensor less some changes with their coefficients, in float32 (float64 stays)."""
    result = wide(values)
    for delta, coefficient in changes:
        change = delta.dense()
        if change.shape == result.shape:
            result = result - coefficient * change
        else:
            rows = min(len(change), len(result))
            result = result.clone()
            result[:rows] -= coefficient * change[:rows]
    return result


def fits(shape: Shape, change: Shape, *, vocabulary: bool) -> bool:
    """Whether a change of one shape can be taken from a tensor of another; only a vocabulary may differ in its rows."""
    return shape == change or (vocabulary and len(shape) == len(change) and shape[1:] == change[1:])
