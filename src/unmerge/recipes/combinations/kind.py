"""A kind of combination: what it takes of every adapter, before that is weighed and summed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Kind:
    """One of PEFT's kinds, whether it is applied to factors or to products.

    Attributes:
        name: as PEFT names it where factors are combined; ``_svd`` is added for products.
        parts: (n, ...) raw matrices and (n, ...) masks -> (n, ...) the part of each that goes into the sum.
        prunes: whether it keeps a share by magnitude.
        majority: how it elects signs; PEFT's default where it does not.
    """

    name: str
    parts: Callable[[Tensor, Tensor], Tensor]
    prunes: bool = False
    majority: str = "total"
