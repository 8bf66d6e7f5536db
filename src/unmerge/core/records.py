"""Records: what was run, on what, with which versions, and what came out.

Reports read records and never compute; a record therefore says everything needed to make it again.
"""

from __future__ import annotations

import errno
import hashlib
import importlib.metadata
import json
import os
import platform
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from unmerge.core.errors import BadInput, BadOutput

#: libraries whose version can change a number
_LIBRARIES = ("unmerge", "torch", "numpy", "scipy", "scikit-learn", "safetensors", "transformers", "peft", "trl", "mergekit")


class Source(BaseModel):
    """Where an input came from: its path and the SHA-256 of each of its files."""

    path: str
    sha256: dict[str, str]


class Environment(BaseModel):
    """What ran: the command line, the interpreter and the versions of the libraries."""

    command: list[str]
    python: str
    platform: str
    versions: dict[str, str]


def environment() -> Environment:
    """The present process: command, interpreter and library versions."""
    versions = {}
    for library in _LIBRARIES:
        try:
            versions[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            continue
    return Environment(command=sys.argv, python=platform.python_version(), platform=platform.platform(), versions=versions)


def source(folder: Path, files: Iterable[Path]) -> Source:
    """Hash the files of an input."""
    return Source(path=str(folder), sha256={file.name: sha256(file) for file in sorted(files)})


def sha256(file: Path) -> str:
    """SHA-256 of a file, read in blocks."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def fingerprint(value: Any) -> str:
    """SHA-256 of a JSON-like value: equal values, equal fingerprints."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def read_json(file: Path, expected: str) -> Any:
    """Parse a JSON file; ``expected`` says what it should hold."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadInput(expected=expected, found="no such file", where=file, hint="check the path") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise BadInput(
            expected=expected, found=f"broken JSON ({error})", where=file, hint="download or write the file again"
        ) from error


def write_text(file: Path, text: str) -> None:
    """Write a file beside its place, then rename it: never half a file."""
    beside = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(text, encoding="utf-8")
        beside.replace(file)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise cannot_write(file, error) from error


def write_json(file: Path, value: Any) -> None:
    """Write a record (a pydantic model or plain JSON data), atomically."""
    data = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
    write_text(file, json.dumps(data, indent=2, ensure_ascii=False) + "\n")


_FULL = {errno.ENOSPC, errno.EFBIG, errno.EDQUOT}
_REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ENAMETOOLONG}


def is_refusal(error: OSError) -> bool:
    """Whether the system refused a write (full, read-only, not a folder, ...)."""
    return error.errno in _FULL | _REFUSED


def cannot_write(where: Path, error: OSError) -> BadOutput:
    """The error to raise when the system refuses a write."""
    hint = "free some space" if error.errno in _FULL else "choose another place with --out"
    return BadOutput(where=where, found=error.strerror or str(error), hint=hint)
