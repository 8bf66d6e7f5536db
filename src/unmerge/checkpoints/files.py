"""Safetensors on disk, one file or many shards, read one tensor at a time."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import EllipsisType
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from unmerge.checkpoints.formats import named_format
from unmerge.checkpoints.hub import pinned
from unmerge.checkpoints.pickles import pickled_weights
from unmerge.checkpoints.rewrite import read_header
from unmerge.core.errors import BadInput
from unmerge.core.records import FETCH, POINTER, Source, is_pointer, read_json
from unmerge.core.sources import source
from unmerge.vectors import Shape

#: dtypes as safetensors names them
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
}
#: integers of the same size, and infinity's bit pattern
_PATTERNS = {
    torch.float16: (torch.int16, np.uint16, 0x7C00),
    torch.bfloat16: (torch.int16, np.uint16, 0x7F80),
    torch.float32: (torch.int32, np.uint32, 0x7F80_0000),
    torch.float64: (torch.int64, np.uint64, 0x7FF0_0000_0000_0000),
}
_FLOATS = {"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"}
#: what helps where weights were saved without their entries
GATHER = "gather its shards (DeepSpeed ZeRO-3, FSDP) and save it again"
#: a tensor with more numbers than this is never read as a whole where rows will do
LARGEST = 1 << 28

#: how to turn a pickle into safetensors, by the stem of its name; other pickles are not transformers' and PEFT's
_CONVERT = {
    "pytorch_model": "convert it first: AutoModelForCausalLM.from_pretrained(...).save_pretrained(...)",
    "adapter_model": "convert it first: PeftModel.from_pretrained(base, ...).save_pretrained(...)",
}
_OTHER_PICKLE = "convert it to safetensors with the library that wrote it"


@dataclass(frozen=True)
class TensorFiles:
    """The safetensors files of one model or adapter.

    Attributes:
        folder: where they lie.
        place: the file of every tensor.
    """

    folder: Path
    place: Mapping[str, Path]
    _handles: dict[Path, Any] = field(default_factory=dict, repr=False, compare=False)
    _starts: dict[Path, dict[str, int]] = field(default_factory=dict, repr=False, compare=False)
    _rows: dict[str, OnDisk] = field(default_factory=dict, repr=False, compare=False)

    @staticmethod
    def find(folder: Path, stem: str) -> TensorFiles:
        """Open ``stem.safetensors``, or else the shards that ``stem.safetensors.index.json`` lists.

        Raises:
            BadInput: neither is there, a shard is missing or damaged, or only pickles are there.
        """
        index, single = folder / f"{stem}.safetensors.index.json", folder / f"{stem}.safetensors"
        if single.exists():  # first, as transformers does: what lies beside it may be older
            return TensorFiles(folder, dict.fromkeys(_tensor_names(single), single))
        if index.exists():
            return _from_index(folder, index)
        if pickles := pickled_weights(folder):
            raise BadInput(
                expected=f"weights in {single.name}",
                found=f"a pickle ({pickles[0].name}), which is never loaded because loading it runs code",
                where=folder,
                hint=_CONVERT.get(pickles[0].name.partition(".bin")[0].partition("-00")[0], _OTHER_PICKLE),
            )
        raise named_format(sorted(folder.iterdir()), f"weights in {single.name}") or BadInput(
            expected=f"weights in {single.name} or {index.name}",
            found="neither file",
            where=folder,
            hint="check the path, or download the weights again",
        )

    @property
    def files(self) -> tuple[Path, ...]:
        """The weight files, each once, in order."""
        return tuple(dict.fromkeys(self.place.values()))

    @cached_property
    def shapes(self) -> Mapping[str, Shape]:
        """The shape of every tensor, from the headers alone."""
        return {name: tuple(self._slice(name).get_shape()) for name in self.place}

    def dtype(self, name: str) -> str:
        """The dtype of a tensor as safetensors writes it (``BF16``)."""
        return str(self._slice(name).get_dtype())

    def is_weight(self, name: str) -> bool:
        """Whether a tensor holds floating-point numbers; others are buffers, such as masks and positions."""
        return self.dtype(name) in _FLOATS

    def read(self, name: str) -> Tensor:
        """One tensor in its own dtype.

        Raises:
            BadInput: the tensor is quantised, or holds a NaN or an infinity.
        """
        return self.rows(name)[:]

    def rows(self, name: str) -> OnDisk:
        """A tensor that is read by rows, when they are asked for.

        Raises:
            BadInput: the tensor is quantised; or later, when it is read, holds a NaN or an infinity.
        """
        if name not in self._rows:
            self._rows[name] = self._found(name)
        return self._rows[name]

    def source(self, *extra: Path) -> Source:
        """Hashes of the weight files and of ``extra`` ones."""
        return source(self.folder, [*self.files, *(path for path in extra if path.exists())], pinned(self.folder))

    def _found(self, name: str) -> OnDisk:
        file = self.place[name]
        if not self.is_weight(name):
            raise BadInput(
                expected="floating-point weights", found=f"{self.dtype(name)} values", where=file, tensor=name, hint="dequantise the checkpoint first"
            )
        if file not in self._starts:
            self._starts[file] = _starts(file)
        return OnDisk(file, name, self._starts[file][name], torch.Size(self.shapes[name]), DTYPES[self.dtype(name)])

    def _handle(self, file: Path) -> Any:
        if file not in self._handles:
            self._handles[file] = _open(file)
        return self._handles[file]

    def _slice(self, name: str) -> Any:
        return self._handle(self.place[name]).get_slice(name)


@dataclass(frozen=True)
class OnDisk:
    """A tensor in a file. It is read into memory of its own, not mapped: pages of a mapped file would stay as long as the file is open.

    Attributes:
        file: a safetensors file.
        name: of the tensor.
        start: its first byte.
        shape, dtype: of the whole.
    """

    file: Path
    name: str
    start: int
    shape: torch.Size
    dtype: torch.dtype

    @property
    def is_huge(self) -> bool:
        """Whether it should be read a few rows at a time: an embedding of half a GB and more."""
        return math.prod(self.shape) > LARGEST

    def __getitem__(self, block: slice | EllipsisType) -> Tensor:
        """Some rows, or all.

        Raises:
            BadInput: there is a NaN or an infinity among them, or the file has become shorter.
        """
        if not self.shape or isinstance(block, EllipsisType):
            return self._read(0, math.prod(self.shape)).reshape(self.shape)
        first, last, step = block.indices(self.shape[0])
        if step != 1:
            chosen = [self[row : row + 1] for row in range(first, last, step)]
            return torch.cat(chosen) if chosen else self[:0]
        width = math.prod(self.shape[1:])
        return self._read(first * width, max(last - first, 0) * width).reshape(max(last - first, 0), *self.shape[1:])

    def part(self, start: int, shape: Shape) -> OnDisk:
        """A block of it: so many entries from its beginning, and of that shape."""
        return replace(self, start=self.start + start * self.dtype.itemsize, shape=torch.Size(shape))

    def _read(self, first: int, count: int) -> Tensor:
        values = torch.empty(count, dtype=self.dtype)
        if not count:
            return values
        buffer = values.view(torch.uint8).numpy().data
        with self.file.open("rb", buffering=0) as stream:
            stream.seek(self.start + first * self.dtype.itemsize)
            while len(buffer):  # the system reads no more than 2 GiB at a time
                got = stream.readinto(buffer)
                if not got:
                    raise BadInput(expected="a whole safetensors file", found="one cut short", where=self.file, hint="download or write it again")
                buffer = buffer[got:]
        if not _is_finite(values):
            raise BadInput(
                expected="finite weights", found="NaN or infinity", where=self.file, tensor=self.name, hint="write or download the file again"
            )
        return values


def _is_finite(values: Tensor) -> bool:
    """Whether no number is infinite or NaN: of either sign, their bit patterns are the largest. No copy, and as fast as reading."""
    if values.dtype not in _PATTERNS:
        return bool(torch.isfinite(values.float()).all())
    signed, unsigned, infinite = _PATTERNS[values.dtype]
    bits = values.view(signed).numpy()
    return bool(bits.max() < infinite) and bool(bits.view(unsigned).max() < infinite + (1 << (8 * bits.itemsize - 1)))


def _starts(file: Path) -> dict[str, int]:
    """The first byte of every tensor in a safetensors file."""
    start, header = read_header(file)
    return {name: start + int(entry["data_offsets"][0]) for name, entry in header.items() if "data_offsets" in entry}


def existing_folder(folder: Path) -> Path:
    """The folder, if it is one."""
    if not folder.is_dir():
        found = "a file" if folder.exists() else "no such folder"
        raise BadInput(expected="a folder", found=found, where=folder, hint="check the path")
    return folder


def _from_index(folder: Path, index: Path) -> TensorFiles:
    listed = read_json(index, "a safetensors index")
    weight_map = listed.get("weight_map") if isinstance(listed, dict) else None
    if not isinstance(weight_map, dict) or not all(isinstance(file, str) for file in weight_map.values()):
        raise BadInput(expected="a safetensors index with a weight_map", found="none", where=index, hint="download the file again")
    held = {file: _tensor_names(folder / file) for file in dict.fromkeys(weight_map.values())}
    for name, file in weight_map.items():
        if name not in held[file]:
            raise BadInput(
                expected="the tensors that the index lists",
                found="the tensor is not in its shard",
                where=folder / file,
                tensor=name,
                hint="download the shard again",
            )
    # what a shard holds beyond the index counts, as it does for transformers; where two hold a tensor the index decides
    place = {name: folder / file for file, names in held.items() for name in names}
    return TensorFiles(folder, place | {name: folder / file for name, file in weight_map.items()})


def _tensor_names(file: Path) -> list[str]:
    if not file.is_file():
        raise BadInput(expected="a safetensors file", found="no such file", where=file, hint="download the missing file")
    return sorted(_open(file).keys())


def _open(file: Path) -> Any:
    opened: Any = safe_open
    try:
        return opened(file, framework="pt").__enter__()
    except SafetensorError as error:
        pointer = is_pointer(file)
        raise BadInput(
            expected="a whole safetensors file",
            found=POINTER if pointer else f"a truncated or corrupt one ({error})",
            where=file,
            hint=FETCH if pointer else "download or write it again",
        ) from error
    except OSError as error:
        raise BadInput(expected="a safetensors file", found=f"one that cannot be read ({error})", where=file, hint="check the path") from error
