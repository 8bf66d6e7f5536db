"""Writing safetensors one tensor at a time, so that no shard has to fit in memory.

The format: eight bytes of header length, a JSON header with dtype, shape and byte offsets of every tensor, then their
bytes one after the other (https://github.com/huggingface/safetensors).
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from unmerge.checkpoints.files import DTYPES
from unmerge.vectors import Shape

_NAMES = {dtype: name for name, dtype in DTYPES.items()}


def write_tensors(file: Path, layout: Mapping[str, tuple[str, Shape]], tensors: Iterable[Tensor]) -> None:
    """Write a safetensors file from a stream.

    Args:
        file: to write.
        layout: (dtype as safetensors names it, shape) of every tensor, in order.
        tensors: the tensors, in that order; each is converted to its dtype.
    """
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, (dtype, shape) in layout.items():
        start, end = end, end + torch.Size(shape).numel() * DTYPES[dtype].itemsize
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with file.open("wb") as stream:
        stream.write(struct.pack("<Q", len(text)) + text)
        for (dtype, shape), tensor in zip(layout.values(), tensors, strict=True):
            assert tuple(tensor.shape) == shape
            values = tensor.to(DTYPES[dtype]).contiguous()
            stream.write(values.reshape(-1).view(torch.uint8).numpy().data)


def save_tensors(file: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors that are in memory."""
    write_tensors(file, {name: (_NAMES[tensor.dtype], tuple(tensor.shape)) for name, tensor in tensors.items()}, tensors.values())
