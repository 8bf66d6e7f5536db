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
import re
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from unmerge.core.errors import BadInput, BadOutput

#: libraries whose version can change a number
_LIBRARIES = ("unmerge", "torch", "numpy", "scipy", "scikit-learn", "safetensors", "transformers", "peft", "trl", "mergekit")

#: what a pointer of git's large file storage begins with, and what is said of it
_LFS = b"version https://git-lfs"
POINTER, FETCH = "a git-lfs pointer in its place", "fetch it with: git lfs pull"


class Source(BaseModel):
    """Where an input came from: its path, the SHA-256 of each of its files, and where on the hub it is, if it is (``owner/name@commit``)."""

    path: str
    sha256: dict[str, str]
    hub: str | None = None


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
    command = [Path(sys.argv[0]).name, *sys.argv[1:]]
    return Environment(command=command, python=platform.python_version(), platform=platform.platform(), versions=versions)


def sha256(file: Path) -> str:
    """SHA-256 of a file, read in blocks."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def fingerprint(value: Any) -> str:
    """SHA-256 of a JSON-like value: equal values, equal fingerprints."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def is_pointer(file: Path) -> bool:
    """Whether a file is what git leaves in the place of a large one that was not fetched."""
    with file.open("rb") as stream:
        return stream.read(len(_LFS)) == _LFS


def read_json(file: Path, expected: str) -> Any:
    """Parse a JSON file; ``expected`` says what it should hold."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        found = "no such file" if isinstance(error, FileNotFoundError) else f"a file that cannot be read ({error.strerror})"
        raise BadInput(expected=expected, found=found, where=file, hint="check the path") from error
    except (ValueError, RecursionError) as error:  # not JSON, not UTF-8, or nested without end
        if is_pointer(file):
            raise BadInput(expected=expected, found=POINTER, where=file, hint=FETCH) from error
        raise BadInput(expected=expected, found=f"broken JSON ({error})", where=file, hint="download or write the file again") from error


def write_text(file: Path, text: str) -> None:
    """Write a text file, never half of it."""
    write_bytes(file, text.encode("utf-8"))


def write_bytes(file: Path, content: bytes) -> None:
    """Write a file beside its place, then rename it: never half a file."""
    beside = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        beside.write_bytes(content)
        beside.replace(file)
    except BaseException as error:
        with suppress(OSError):  # where the parent is a file, removing fails as writing did
            beside.unlink()
        if isinstance(error, OSError):
            raise cannot_write(file, error) from error
        raise


def write_json(file: Path, value: Any) -> None:
    """Write a record (a pydantic model or plain JSON data), atomically."""
    data = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
    write_text(file, json.dumps(data, indent=2, ensure_ascii=False) + "\n")


_FULL = {errno.ENOSPC, errno.EFBIG, errno.EDQUOT}
_REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ENAMETOOLONG}


def is_refusal(error: BaseException) -> bool:
    """Whether the system refused a write (full, read-only, not a folder, ...)."""
    return _errno(error) in _FULL | _REFUSED


def is_full(error: BaseException) -> bool:
    """Whether there was no room: a full disk, a quota, a limit on the size of a file."""
    return _errno(error) in _FULL


def cannot_write(where: Path, error: BaseException) -> BadOutput:
    """The error to raise when the system refuses a write."""
    number = _errno(error)
    hint = "free some space" if number in _FULL else "choose another place with --out"
    return BadOutput(where=where, found=os.strerror(number) if number else str(error), hint=hint)


def _errno(error: BaseException) -> int | None:
    """The system's error number. Libraries in Rust, safetensors among them, and ``shutil.copytree`` raise errors that only print it."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    printed = re.search(r"(?:\(os error |\[Errno )(\d+)[)\]]", str(error))
    return int(printed[1]) if printed else None
