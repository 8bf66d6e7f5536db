"""What an input was: its folder, its name on the hub, and the hashes of its files."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from unmerge.core.records import Source
from unmerge.core.remembered import remembered_hash

#: stands for the folder of what has none
MEMORY = Path("in memory")


def source(folder: Path, files: Iterable[Path], hub: str | None = None) -> Source:
    """Hash the files of an input, or remember their hashes."""
    return Source(path=str(folder), sha256={file.name: remembered_hash(file) for file in sorted(files)}, hub=hub)
