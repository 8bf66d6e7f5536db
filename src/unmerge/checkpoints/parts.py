"""Where a tensor lies: in a stored one of its name, or as a block of a larger one.

transformers 5 keeps the experts of a mixture as one tensor a layer, where files (and adapters) of version 4 have one an expert. They are the
same numbers (compared bit for bit with what transformers writes of Mixtral and Qwen3-MoE in both forms):

    experts.gate_up_proj  (E, 2I, H)    experts.e.gate_proj = [e, :I],  experts.e.up_proj = [e, I:]
    experts.down_proj     (E, H, I)     experts.e.down_proj = [e]

Every expert is a tensor here, so that both forms compare, and an adapter to a single expert finds it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from unmerge.vectors import Shape

_GATE_UP, _DOWN = "gate_up_proj", "down_proj"


@dataclass(frozen=True)
class Part:
    """A block of whole rows of a stored tensor, or all of it.

    Attributes:
        stored: the name that it is stored under.
        start: how many entries come before it.
        shape: of the block.
        beyond: how many more rows are stored, which do not count.
    """

    stored: str
    start: int
    shape: Shape
    beyond: int = 0

    @property
    def all_rows(self) -> int:
        """How many rows are stored, those that do not count among them."""
        return (self.shape[0] if self.shape else 1) + self.beyond

    def rows(self, count: int) -> Part:
        """Its first rows, as many as ``count``."""
        return Part(self.stored, self.start, (count, *self.shape[1:]), self.all_rows - count)

    def of(self, values: Tensor) -> Tensor:
        """The block of the stored tensor's values, which it shares memory with."""
        return values.reshape(-1)[self.start : self.start + math.prod(self.shape)].reshape(self.shape)


def parts_of(shapes: Mapping[str, Shape]) -> dict[str, Part]:
    """The tensors of a checkpoint by name.

    Args:
        shapes: of the stored tensors.
    """
    parts: dict[str, Part] = {}
    for stored, shape in shapes.items():
        module, _, kind = stored.rpartition(".")
        gate_up, down = shapes.get(f"{module}.{_GATE_UP}", ()), shapes.get(f"{module}.{_DOWN}", ())
        if kind not in (_GATE_UP, _DOWN) or not _are_experts(gate_up, down):
            parts[stored] = Part(stored, 0, shape)
            continue
        count, hidden, inner = down
        size = math.prod(shape[1:])
        for expert in range(count):
            if kind == _DOWN:
                parts[f"{module}.{expert}.down_proj.weight"] = Part(stored, expert * size, (hidden, inner))
                continue
            for place, half in enumerate(("gate_proj", "up_proj")):
                parts[f"{module}.{expert}.{half}.weight"] = Part(stored, expert * size + place * inner * hidden, (inner, hidden))
    return parts


def _are_experts(gate_up: Shape, down: Shape) -> bool:
    """Whether two tensors are the experts of a mixture, their matrices (out, in); gpt-oss has them (in, out), and gate and up interleaved."""
    return len(gate_up) == len(down) == 3 and gate_up == (down[0], 2 * down[2], down[1])
