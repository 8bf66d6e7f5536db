"""What a source of task vectors is: a map from tensor names to changes, read one at a time.

``checkpoints`` implements it for files; ``Held`` holds changes in memory.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from unmerge.core.errors import BadInput
from unmerge.core.records import Source
from unmerge.core.sources import MEMORY
from unmerge.vectors.delta import Delta, Dense, LowRank, Shape


@dataclass(frozen=True)
class Skipped:
    """A tensor that was left out of a task vector, and why."""

    tensor: str
    reason: str


@runtime_checkable
class TaskVector(Protocol):
    """theta_ft - theta_pre, one tensor at a time.

    Names are those of the base's checkpoint (``model.layers.0.self_attn.q_proj.weight``).
    """

    @property
    def name(self) -> str:
        """What to call it."""
        ...

    @property
    def shapes(self) -> Mapping[str, Shape]:
        """The tensors that change, with their shapes. A tensor that is not named here does not change."""
        ...

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """The tensors that were left out."""
        ...

    def delta(self, tensor: str) -> Delta:
        """The change of one tensor, read now; of two checkpoints when its rows are asked for."""
        ...


@dataclass(frozen=True)
class Held:
    """A task vector in memory.

    Attributes:
        name: what to call it.
        deltas: the changes, by tensor.
        skipped: tensors that were left out.
        modules: a regular expression that is found in the names of the tensors that count; all do where none is given.
        notes: what the user should know of how it was read.
        left_rows: rows that are not compared.
        factors: what its change of a tensor is multiplied by, where it acts otherwise there than elsewhere.
    """

    name: str
    deltas: Mapping[str, Delta]
    skipped: tuple[Skipped, ...] = field(default=())
    modules: str | None = None
    notes: tuple[str, ...] = ()
    left_rows: tuple[Skipped, ...] = ()
    factors: Mapping[str, float] = field(default_factory=dict)

    @property
    def shapes(self) -> Mapping[str, Shape]:
        return {tensor: delta.shape for tensor, delta in self.deltas.items()}

    def delta(self, tensor: str) -> Delta:
        change = self.deltas[tensor]
        return change.scaled(self.factors[tensor]) if tensor in self.factors else change

    def of_modules(self, pattern: re.Pattern[str]) -> Held:
        """The same, of the tensors in whose names the pattern is found."""
        deltas = {tensor: delta for tensor, delta in self.deltas.items() if pattern.search(tensor)}
        skipped, left = (tuple(skip for skip in skips if pattern.search(skip.tensor)) for skips in (self.skipped, self.left_rows))
        return replace(self, deltas=deltas, skipped=skipped, left_rows=left, modules=pattern.pattern)

    def first_rows(self, rows: Mapping[str, int]) -> Held:
        """The same, with no more than the first rows of some tensors."""
        return replace(self, deltas={name: first_rows(delta, rows[name]) if name in rows else delta for name, delta in self.deltas.items()})

    def source(self) -> Source:
        """A hash of all changes, in the place of files'."""
        return self._source

    @cached_property
    def _source(self) -> Source:
        parts: dict[str, Tensor] = {}
        for tensor, delta in self.deltas.items():
            parts |= {f"{tensor}/B": delta.b, f"{tensor}/A": delta.a} if isinstance(delta, LowRank) else {tensor: delta.dense()}
        return Source(path=str(MEMORY), sha256={"changes": digest(parts)})


def digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of tensors by name: of names, dtypes, shapes and bytes, in the order of the names."""
    found = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        found.update(f"{name}\n{tensor.dtype}\n{tuple(tensor.shape)}\n".encode())
        # a tensor without dimensions cannot be seen as bytes
        found.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def first_rows(delta: Delta, count: int) -> Delta:
    """The first rows of a change, as many as ``count``."""
    return LowRank(delta.b[:count], delta.a) if isinstance(delta, LowRank) else Dense(delta.dense()[:count])


def common(vectors: Sequence[TaskVector]) -> tuple[dict[str, Shape], tuple[Skipped, ...]]:
    """The tensors that at least one of the vectors changes, and those that are left out.

    A tensor that one vector leaves out is left out for all: a change that is not known must not be taken for none.

    Returns:
        (shapes by tensor, what is left out, named with the vector that does).

    Raises:
        BadInput: two vectors give a tensor different shapes.
    """
    skipped = tuple(Skipped(skip.tensor, f"{vector.name}: {skip.reason}") for vector in vectors for skip in vector.skipped)
    left_out = {skip.tensor for skip in skipped}
    shapes: dict[str, Shape] = {}
    for vector in vectors:
        for tensor, shape in vector.shapes.items():
            if tensor not in left_out and shapes.setdefault(tensor, shape) != shape:
                raise BadInput(
                    expected=f"the shape {shapes[tensor]} that the tensor has in the other task vectors",
                    found=f"{shape}",
                    where=vector.name,
                    tensor=tensor,
                    hint="they belong to different models; give the base with --base to see which one does not fit",
                )
    return shapes, skipped
