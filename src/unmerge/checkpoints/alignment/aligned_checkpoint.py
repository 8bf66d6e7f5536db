"""A checkpoint in its base's coordinates: a view, read lazily, of a checkpoint that computes the same with its weights arranged otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from unmerge.checkpoints.alignment.tensor_map import AlignedRows, TensorMap
from unmerge.checkpoints.checkpoint import Checkpoint
from unmerge.checkpoints.files import TensorFiles
from unmerge.core.records import Source
from unmerge.vectors import Shape

#: dtypes as safetensors names them, for values that a view computes
_NAMES = {torch.float64: "F64", torch.float32: "F32"}


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
class AlignedFiles(TensorFiles):
    """Tensor files under the base's names and in its coordinates.

    Attributes:
        stored: the files as they are.
        ways: by name in the base.
    """

    stored: TensorFiles = field(kw_only=True)
    ways: Mapping[str, TensorMap] = field(kw_only=True)

    @cached_property
    def shapes(self) -> Mapping[str, Shape]:
        return {name: self.stored.shapes[way.stored] for name, way in self.ways.items()}

    def dtype(self, name: str) -> str:
        way = self.ways[name]
        if not self.stored.is_weight(way.stored):
            return self.stored.dtype(way.stored)
        return _NAMES.get(self.rows(name).dtype, self.stored.dtype(way.stored))

    def is_weight(self, name: str) -> bool:
        return self.stored.is_weight(self.ways[name].stored)

    def rows(self, name: str) -> Any:
        way = self.ways[name]
        found = self.stored.rows(way.stored)
        return found if way.is_identity else AlignedRows(found, way)

    def source(self, *extra: Path) -> Source:
        return self.stored.source(*extra)


@dataclass(frozen=True)
class AlignedCheckpoint(Checkpoint):
    """A checkpoint in its base's coordinates.

    Attributes:
        stored: the checkpoint as it is.
        operations: what was undone.
        unlike: tensors that nothing tried brings near the base's, with the reason; they are left out.
        copies: the base's name for each stored tensor that is there twice, and is read from its first copy.
    """

    files: AlignedFiles
    stored: Checkpoint = field(kw_only=True)
    operations: tuple[Operation, ...] = ()
    unlike: Mapping[str, str] = field(default_factory=dict)
    copies: Mapping[str, str] = field(default_factory=dict)

    @staticmethod
    def of(stored: Checkpoint) -> AlignedCheckpoint:
        """The view that changes nothing yet."""
        return AlignedCheckpoint(stored.folder, stored.config, _view(stored, {name: TensorMap(name) for name in stored.shapes}), stored=stored)

    def way(self, tensor: str) -> TensorMap:
        """From the stored tensor to an aligned one."""
        return self.files.ways[tensor]

    def changed(self, ways: Mapping[str, TensorMap], operation: Operation) -> AlignedCheckpoint:
        """The same with other ways to some tensors, because of an operation."""
        return replace(self, files=_view(self.stored, {**self.files.ways, **ways}), operations=(*self.operations, operation))

    def only(self, ways: Mapping[str, TensorMap], copies: Mapping[str, str], operation: Operation) -> AlignedCheckpoint:
        """The same with these tensors alone, and more copies."""
        return replace(self, files=_view(self.stored, ways), copies={**self.copies, **copies}, operations=(*self.operations, operation))


def _view(stored: Checkpoint, ways: Mapping[str, TensorMap]) -> AlignedFiles:
    return AlignedFiles(stored.files.folder, {name: stored.files.place[way.stored] for name, way in ways.items()}, stored=stored.files, ways=ways)
