"""Pickled weights, told from other pickles without loading them: loading a pickle runs code.

``torch.save`` writes a zip archive whose ``data.pkl`` names every tensor; older versions wrote several pickles one after the other. The
opcodes are read, nothing is built: a state dict names weights, an optimizer its ``param_groups``, training arguments a class.
"""

from __future__ import annotations

import io
import pickletools
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

#: endings that pickles have
PICKLES = (".bin", ".pt", ".pth", ".ckpt")
_WEIGHTS = (".weight", ".bias")
#: the key by which every optimizer's state is told
_OPTIMIZER = "param_groups"
#: an old file holds a magic number, a version, a description of the system, and the object
_OLD = 4


def holds_weights(file: Path) -> bool:
    """Whether a pickle names weights; a file that is no pickle does not."""
    try:
        words = set(_words(file))
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return False
    return _OPTIMIZER not in words and any(word.endswith(_WEIGHTS) for word in words)


def pickled_weights(folder: Path) -> list[Path]:
    """The files of a folder that are pickled weights, in order."""
    return sorted(path for path in folder.iterdir() if path.suffix in PICKLES and path.is_file() and holds_weights(path))


def _words(file: Path) -> Iterator[str]:
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            for name in archive.namelist():
                if name.endswith("data.pkl"):
                    yield from _strings(io.BytesIO(archive.read(name)))
        return
    with file.open("rb") as stream:
        for _ in range(_OLD):
            yield from _strings(stream)


def _strings(stream: Any) -> Iterator[str]:
    for opcode, argument, _ in pickletools.genops(stream):
        if isinstance(argument, str) and "UNICODE" in opcode.name:
            yield argument
