"""Memory that is used again.

The system hands out fresh memory page by page, and where it does so slowly (a virtual machine), a matrix of some hundred MB takes longer to
get than to fill. So each thread keeps one piece for the matrix that it works on.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from unmerge.vectors.delta import Subtracted

_own = threading.local()


def scratch(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """A tensor of any contents in this thread's piece of memory; the next call in this thread takes it away."""
    size = math.prod(shape) * dtype.itemsize
    if getattr(_own, "piece", None) is None or len(_own.piece) < size:
        _own.piece = None  # before a larger one is asked for
        _own.piece = torch.empty(size, dtype=torch.uint8)
    piece: Tensor = _own.piece[:size]
    return piece.view(dtype).view(*shape)


def in_scratch(difference: Subtracted) -> Float[Tensor, ...]:
    """The whole difference, of a processor's in this thread's piece of memory; a card's memory is kept by torch itself."""
    return difference.written(scratch(difference.shape, difference.dtype)) if difference.device.type == "cpu" else difference.values
