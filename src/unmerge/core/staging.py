"""Staging: a folder that is built beside its place and renamed when it is whole.

    with staged(out, job) as stage:
        if not stage.has("adapter_a"):
            with stage.piece("adapter_a") as piece:      # piece: a path where nothing is yet
                ...                                      # make a file or a folder of it

An interrupted job leaves ``.OUT.partial`` behind. The same job (equal ``job`` fingerprints) picks its finished
pieces up again; another job starts afresh. ``OUT`` itself is either absent or whole.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from unmerge.core.errors import BadOutput
from unmerge.core.records import cannot_write, fingerprint, is_full, is_refusal, write_json

_JOB = ".job.json"
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
        out: the folder to make. It must not exist or be empty, unless ``replace``.
        job: JSON-like description of what is made; decides whether finished pieces can be used.
        replace: take the place of a folder that exists; it stays until the new one is whole.

    Raises:
        BadOutput: the folder exists, or the system refuses a write.
    """
    partial = out.parent / f".{out.name}.partial"
    made: list[Path] = []
    ready = False
    try:
        if out.exists() and not replace and (not out.is_dir() or any(out.iterdir())):
            raise BadOutput(where=out, found="it exists already", hint="remove it or choose another --out")
        made = [parent for parent in partial.parents if not parent.exists()]
        _prepare(partial, fingerprint(job))
        ready = True
        yield Stage(partial)
        _finish(partial, out)
    except BaseException as error:
        _discard(partial, made)
        if isinstance(error, OSError) and not ready:
            raise cannot_write(out, error) from error
        if is_refusal(error) and (place := _place(error, partial, out)):
            raise cannot_write(place, error) from error
        raise


def _prepare(partial: Path, mark: str) -> None:
    """Take up what the same job left behind, or start with an empty folder."""
    with suppress(OSError, ValueError):
        if json.loads((partial / _JOB).read_text(encoding="utf-8")) == {"job": mark}:
            return
    _remove(partial)
    partial.mkdir(parents=True)
    write_json(partial / _JOB, {"job": mark})


def _finish(partial: Path, out: Path) -> None:
    """Put the folder in its place. A kill between any two lines loses neither the old folder nor the new one."""
    _remove(partial / _UNFINISHED)
    old = out.parent / f".{out.name}.old"
    if out.exists() or out.is_symlink():
        _remove(old)
        out.rename(old)
    partial.rename(out)
    (out / _JOB).unlink()
    _remove(old)


def _discard(partial: Path, made: Iterable[Path]) -> None:
    """Leave nothing half-written: only finished pieces stay, for the next try."""
    with suppress(OSError):
        _remove(partial / _UNFINISHED)
        if partial.exists() and all(entry.name == _JOB for entry in partial.iterdir()):
            _remove(partial)
        for parent in made:
            parent.rmdir()  # fails, as it should, where a piece was kept


def _place(error: BaseException, partial: Path, out: Path) -> Path | None:
    """What could not be written; None where the system refused something else, such as reading an input."""
    named = error.filename2 or error.filename if isinstance(error, OSError) else None  # the second one is where a copy goes
    if not isinstance(named, str) or Path(named).is_relative_to(partial):
        return out
    return Path(named) if is_full(error) else None


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
