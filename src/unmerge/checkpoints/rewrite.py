"""A safetensors file once more with some of its tensors changed; everything else is carried over byte for byte.

What is not changed is never converted, so a tensor of any dtype that the format has, or will have, comes through: masks of booleans, positions,
eight-bit scales, complex numbers. Metadata and the order of the tensors stay as well.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unmerge.core.errors import BadInput

_METADATA = "__metadata__"
#: bytes that are copied at a time
_BLOCK = 1 << 24


def read_header(file: Path) -> tuple[int, dict[str, Any]]:
    """The header of a safetensors file that was opened before, and so is whole.

    Returns:
        (the first byte after it, dtype, shape and ``data_offsets`` from there on by tensor; metadata are one of the entries).
    """
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        return 8 + length, json.loads(stream.read(length))


def rewrite(out: Path, source: Path, names: Collection[str], replaced: Callable[[str], Iterable[Tensor] | None]) -> None:
    """Write a safetensors file again.

    Args:
        out: the file to write.
        source: the file that it is made from.
        names: the tensors to write; others of the file are left out.
        replaced: of a tensor, its values in its own dtype, in pieces one after the other; None where its bytes are copied.

    Raises:
        BadInput: the source has become shorter.
    """
    start, header = read_header(source)
    kept = sorted((entry["data_offsets"], name) for name, entry in header.items() if name in names)
    end = 0
    written: dict[str, Any] = {name: dict(entry) for name, entry in header.items() if name in names or name == _METADATA}
    for (first, last), name in kept:
        written[name]["data_offsets"] = [end, end := end + last - first]
    text = json.dumps(written, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with out.open("wb") as stream:
        stream.write(struct.pack("<Q", len(text)) + text)
        for (first, last), name in kept:
            values = replaced(name)
            pieces = _copied(source, start + first, last - first) if values is None else map(_bytes, values)
            size = sum(map(stream.write, pieces))
            assert size == last - first, f"{name}: {size} bytes in the place of {last - first}"


def _bytes(values: Tensor) -> memoryview:
    # a tensor without dimensions cannot be seen as bytes
    view: memoryview = values.contiguous().reshape(-1).view(torch.uint8).numpy().data
    return view


def _copied(file: Path, start: int, size: int) -> Iterator[bytes]:
    with file.open("rb") as stream:
        stream.seek(start)
        while size:
            block = stream.read(min(size, _BLOCK))
            if not block:
                raise BadInput(expected="a whole safetensors file", found="one cut short", where=file, hint="download or write it again")
            size -= len(block)
            yield block
