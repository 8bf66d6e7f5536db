"""Staging: a folder that is built beside its place and renamed when it is whole.

    with staged(out, job) as stage:
        if not stage.has("adapter_a"):
            with stage.piece("adapter_a") as piece:      # piece: a new, empty folder
                ...                                      # write into it

An interrupted job leaves ``.OUT.partial`` behind. The same job (equal ``job`` fingerprints) picks its finished
pieces up again; another job starts afresh. ``OUT`` itself is either absent or whole.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from unmerge.core.errors import BadOutput
from unmerge.core.records import cannot_write, fingerprint, is_refusal, read_json, write_json

_JOB = "job.json"
_UNFINISHED = ".unfinished"


class Stage:
    """The folder under construction."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def has(self, name: str) -> bool:
        """Whether a piece (file or folder) is finished."""
        return (self.folder / name).exists()

    @contextmanager
    def piece(self, name: str) -> Iterator[Path]:
        """A path to write one piece to, file or folder; the piece counts only when the block ends without an error."""
        unfinished = self.folder / _UNFINISHED
        _remove(unfinished)
        unfinished.mkdir()
        yield unfinished / Path(name).name
        place = self.folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        _remove(place)
        (unfinished / Path(name).name).rename(place)
        unfinished.rmdir()


@contextmanager
def staged(out: Path, job: Any, *, replace: bool = False) -> Iterator[Stage]:
    """Build the folder ``out`` for ``job``.

    Args:
        out: the folder to make. It must not exist, unless ``replace``.
        job: JSON-like description of what is made; decides whether finished pieces can be used.
        replace: take the place of a folder that exists.

    Raises:
        BadOutput: the folder exists, or the system refuses a write.
    """
    if out.exists() and not replace and (not out.is_dir() or any(out.iterdir())):
        raise BadOutput(where=out, found="it exists already", hint="remove it or choose another --out")
    partial = out.parent / f".{out.name}.partial"
    mark = fingerprint(job)
    resumed = partial.exists() and (partial / _JOB).exists() and read_json(partial / _JOB, "a job record").get("job") == mark
    try:
        if not resumed:
            _remove(partial)
            partial.mkdir(parents=True)
            write_json(partial / _JOB, {"job": mark})
        yield Stage(partial)
        _remove(partial / _UNFINISHED)
        (partial / _JOB).unlink()
        _remove(out)
        partial.rename(out)
    except BaseException as error:
        _discard(partial)
        if isinstance(error, OSError) and is_refusal(error):
            raise cannot_write(out, error) from error
        raise


def _discard(partial: Path) -> None:
    """Leave nothing half-written: only finished pieces stay, for the next try."""
    with suppress(OSError):
        _remove(partial / _UNFINISHED)
        if partial.exists() and not any(entry.name != _JOB for entry in partial.iterdir()):
            _remove(partial)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
