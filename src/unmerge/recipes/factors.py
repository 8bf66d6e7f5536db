"""The two factors of a module's change, as an adapter's file has them."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from unmerge.checkpoints import Adapter
from unmerge.checkpoints.forms import EMBEDDING_LORA, LORA
from unmerge.vectors import LowRank


@dataclass(frozen=True)
class Pair:
    """The factors of one module: dW = scale B A, transposed where the base stores the module so.

    Attributes:
        b: (out, r).
        a: (r, in).
        scale: alpha / r, or alpha / sqrt(r).
    """

    b: Tensor
    a: Tensor
    scale: float

    @property
    def change(self) -> LowRank:
        """dW, in float64."""
        return LowRank(self.b.double() * self.scale, self.a.double())


def has_pair(adapter: Adapter, tensor: str) -> bool:
    """Whether an adapter changes a tensor by a product of two factors."""
    change = adapter.changes.get(tensor)
    return change is not None and change.form in (LORA, EMBEDDING_LORA) and change.start is None


def read_pair(adapter: Adapter, tensor: str) -> Pair:
    """The factors of one tensor, in the dtype that they are stored in."""
    change = adapter.changes[tensor]
    a, b = (change.keys[part] for part in sorted(change.keys))  # lora_A..., lora_B...
    return Pair(adapter.files.read(b), adapter.files.read(a), adapter.config.scale_of(change.module))
