"""A state dict in memory as a checkpoint: what has no files is read from tensors, by the same interface."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import EllipsisType

import torch
from safetensors.torch import save_file
from torch import Tensor

from unmerge.checkpoints.checkpoint import Checkpoint
from unmerge.checkpoints.files import DTYPES, LARGEST, TensorFiles
from unmerge.checkpoints.parts import parts_of
from unmerge.core.errors import BadInput
from unmerge.core.records import Source
from unmerge.core.sources import MEMORY
from unmerge.vectors import Shape, digest

_NAMES = {dtype: name for name, dtype in DTYPES.items()}


@dataclass(frozen=True)
class InMemoryRows:
    """A tensor of a state dict, or a block of it. What is read is a copy, so that nobody writes to the model's own weights.

    Attributes:
        tensor: the whole.
        name: of the tensor.
        start: how many entries come before the block.
        shape: of the block.
    """

    tensor: Tensor
    name: str
    start: int
    shape: torch.Size

    @property
    def dtype(self) -> torch.dtype:
        return self.tensor.dtype

    @property
    def is_huge(self) -> bool:
        """Whether it should be copied a few rows at a time."""
        return math.prod(self.shape) > LARGEST

    def __getitem__(self, block: slice | EllipsisType) -> Tensor:
        """Some rows, or all.

        Raises:
            BadInput: there is a NaN or an infinity among them.
        """
        size = math.prod(self.shape)
        view = self.tensor.detach().reshape(-1)[self.start : self.start + size].reshape(self.shape)
        values = (view[block] if self.shape else view).to("cpu", copy=True).contiguous()
        if not bool(torch.isfinite(values.float() if values.dtype.itemsize == 1 else values).all()):
            raise BadInput(expected="finite weights", found="NaN or infinity", where=MEMORY, tensor=self.name, hint="look at how they were made")
        return values

    def part(self, start: int, shape: Shape) -> InMemoryRows:
        """A block of it: so many entries from its beginning, and of that shape."""
        return InMemoryRows(self.tensor, self.name, self.start + start, torch.Size(shape))


@dataclass(frozen=True)
class TensorsInMemory(TensorFiles):
    """The tensors of a state dict, where a checkpoint expects those of its files.

    Attributes:
        tensors: by name. They are read when they are asked for, and must not change in between.
    """

    tensors: dict[str, Tensor] = field(kw_only=True, repr=False, compare=False)

    @property
    def files(self) -> tuple[Path, ...]:
        """None."""
        return ()

    @cached_property
    def shapes(self) -> Mapping[str, Shape]:
        """The shape of every tensor."""
        return {name: tuple(tensor.shape) for name, tensor in self.tensors.items()}

    def dtype(self, name: str) -> str:
        dtype = self.tensors[name].dtype
        return _NAMES.get(dtype, str(dtype))

    def rows(self, name: str) -> InMemoryRows:  # type: ignore[override]  # read as rows of a file are
        if not self.is_weight(name):
            raise BadInput(
                expected="floating-point weights", found=f"{self.dtype(name)} values", where=MEMORY, tensor=name, hint="dequantise the model first"
            )
        return InMemoryRows(self.tensors[name], name, 0, self.tensors[name].shape)

    def source(self, *extra: Path) -> Source:
        """A hash of all tensors, with their names, dtypes and shapes."""
        return self._source

    @cached_property
    def _source(self) -> Source:
        return Source(path=str(MEMORY), sha256={"state_dict": digest(self.tensors)})


def write_state(file: Path, checkpoint: Checkpoint, replaced: Mapping[str, Tensor]) -> None:
    """Write a checkpoint that is in memory as one safetensors file.

    Args:
        file: to write.
        checkpoint: a state dict; each tensor keeps its dtype.
        replaced: the values that some tensors get, by name.
    """
    assert isinstance(checkpoint.files, TensorsInMemory)
    written: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in (checkpoint.files.tensors | dict(replaced)).items():
        values = tensor.detach().cpu().contiguous()
        place = values.untyped_storage().data_ptr()
        written[name] = values.clone() if place in seen else values  # safetensors refuses two names for one memory
        seen.add(place)
    save_file(written, file, metadata={"format": "pt"})


def checkpoint_in_memory(tensors: Mapping[str, object]) -> Checkpoint:
    """A state dict as a checkpoint without files and without a configuration.

    Args:
        tensors: by name, as ``model.state_dict()`` has them, on any device.

    Raises:
        BadInput: there is none, or something else than a tensor with values among them.
    """
    hint = "give model.state_dict()"
    if not tensors:
        raise BadInput(expected="tensors by name", found="an empty mapping", where=MEMORY, hint=hint)
    held: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor) or tensor.is_meta:
            found = "a tensor on the meta device" if isinstance(tensor, Tensor) else f"a {type(tensor).__name__}"
            raise BadInput(expected="a tensor with values", found=found, where=MEMORY, tensor=str(name), hint=hint)
        held[name] = tensor
    files = TensorsInMemory(MEMORY, dict.fromkeys(held, MEMORY), tensors=held)
    return Checkpoint(MEMORY, {}, files, parts_of(files.shapes))
