"""linear: A = sum_i +-sqrt(|w_i s_i|) A_i and B = sum_i sqrt(|w_i s_i|) B_i, so that dW has cross terms; with products, ``svd``.

What gives it away: both factors are linear combinations of the atoms' factors, with coefficients of one size on both sides.
"""

from __future__ import annotations

from torch import Tensor

from unmerge.recipes.combinations.kind import Kind


def _parts(raw: Tensor, _kept: Tensor) -> Tensor:
    return raw


LINEAR = Kind("linear", _parts)
