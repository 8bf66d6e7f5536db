"""A checkpoint in its base's coordinates: a view, read lazily, of a checkpoint that computes the same with its weights arranged otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property

import torch
from torch import Tensor

from unmerge.checkpoints.alignment.tensor_map import AlignedRows, TensorMap
from unmerge.checkpoints.checkpoint import Checkpoint
from unmerge.vectors import Rows, Shape

#: the one operation that mergekit does as well
MOVED = "layers moved"


@dataclass(frozen=True)
class Operation:
    """One kind of rearrangement that was found in a checkpoint and undone.

    Attributes:
        operation: what was done to the weights.
        tensors: names of the tensors in the base that it concerns.
        detail: a sentence about it.
    """

    operation: str
    tensors: tuple[str, ...]
    detail: str


@dataclass(frozen=True)
class AlignedCheckpoint(Checkpoint):
    """A checkpoint in its base's coordinates; its files stay as they are.

    Attributes:
        stored: the checkpoint without the view.
        ways: from the stored tensors to the aligned ones, by name in the base.
        operations: what was undone.
        unlike: tensors that nothing tried brings near the base's, with the reason; they are left out.
        twins: the base's name for each stored tensor that is there twice, and is read from its first copy.
    """

    stored: Checkpoint = field(kw_only=True)
    ways: Mapping[str, TensorMap] = field(kw_only=True)
    operations: tuple[Operation, ...] = ()
    unlike: Mapping[str, str] = field(default_factory=dict)
    twins: Mapping[str, str] = field(default_factory=dict)

    @staticmethod
    def of(stored: Checkpoint) -> AlignedCheckpoint:
        """The view that changes nothing yet."""
        ways = {name: TensorMap(name) for name in stored.shapes}
        return AlignedCheckpoint(**{one.name: getattr(stored, one.name) for one in fields(stored)}, stored=stored, ways=ways)

    @cached_property
    def shapes(self) -> Mapping[str, Shape]:
        """The shape of every tensor that is read; a tied output head is not among them, nor is what is left out."""
        return {name: self.stored.shapes[way.stored] for name, way in self.ways.items()}

    def first_rows(self, rows: Mapping[str, int]) -> AlignedCheckpoint:
        return replace(self, stored=self.stored.first_rows({self.way(tensor).stored: count for tensor, count in rows.items()}))

    def read(self, tensor: str) -> Tensor:
        return self.rows(tensor)[...]

    def rows(self, tensor: str) -> Rows:
        way = self.way(tensor)
        found = self.stored.rows(way.stored)
        return found if way.is_identity else AlignedRows(found, way)

    def is_weight(self, tensor: str) -> bool:
        return self.stored.is_weight(self.way(tensor).stored)

    def dtype(self, tensor: str) -> torch.dtype:
        return self.rows(tensor).dtype

    def way(self, tensor: str) -> TensorMap:
        """From the stored tensor to an aligned one that is held."""
        return self.ways[self._stored(tensor) or tensor]

    @property
    def has_moved_layers_only(self) -> bool:
        """Whether every layer has the base's weights as they lie there, so that mergekit can have made the target."""
        return all(operation.operation == MOVED for operation in self.operations)

    @property
    def summary(self) -> str:
        """What was undone, in a line."""
        return "; ".join(f"{operation.operation} ({operation.detail})" for operation in self.operations)

    def changed(self, ways: Mapping[str, TensorMap], operation: Operation) -> AlignedCheckpoint:
        """The same with other ways to some tensors, because of an operation."""
        return replace(self, ways={**self.ways, **ways}, operations=(*self.operations, operation))
