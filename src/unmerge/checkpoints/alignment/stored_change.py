"""A task vector in the coordinates of a checkpoint as it is stored, so that it can be taken out of it there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from unmerge.checkpoints.alignment.aligned_checkpoint import AlignedCheckpoint
from unmerge.vectors import Delta, Shape, Skipped, TaskVector


@dataclass(frozen=True)
class StoredChange:
    """A task vector to a base, as a change of a checkpoint that computes the same in other coordinates.

    Attributes:
        vector: the task vector, in the base's coordinates.
        target: the checkpoint, seen in the base's coordinates.
    """

    vector: TaskVector
    target: AlignedCheckpoint

    @property
    def name(self) -> str:
        return self.vector.name

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        return self.vector.skipped

    @cached_property
    def shapes(self) -> Mapping[str, Shape]:
        return {stored: self.vector.shapes[tensor] for stored, tensor in self._tensors.items()}

    def delta(self, tensor: str) -> Delta:
        """The change of a stored tensor.

        Raises:
            BadInput: a norm changes that was folded into other tensors.
        """
        name = self._tensors[tensor]
        return self.target.way(name).back(self.vector.delta(name))

    @cached_property
    def _tensors(self) -> Mapping[str, str]:
        """The base's name for every stored tensor that changes."""
        names = {way.stored: name for name, way in self.target.ways.items()} | dict(self.target.twins)
        return {stored: name for stored, name in names.items() if name in self.vector.shapes}
