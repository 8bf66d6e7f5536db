"""Finished cells of one target, a line each, kept as soon as they are finished.

A kill can tear the last line only. A line that is no cell is made again; ``mend`` takes it out before the next one is written.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from unmerge.core.records import cannot_write, write_text
from unmerge.report.study_record import Cell


@dataclass(frozen=True)
class Journal:
    """The cells of a target.

    Attributes:
        file: JSON lines.
    """

    file: Path

    def cells(self) -> list[Cell]:
        """What is finished, in the order of finishing."""
        if not self.file.exists():
            return []
        cells = []
        for line in self.file.read_text(encoding="utf-8", errors="replace").splitlines():
            with suppress(ValidationError):  # torn, or of another version
                cells.append(Cell.model_validate_json(line))
        return cells

    def mend(self) -> None:
        """Take out what is no cell."""
        if self.file.exists():
            write_text(self.file, "".join(cell.model_dump_json() + "\n" for cell in self.cells()))

    def add(self, cell: Cell) -> None:
        """Keep a finished cell."""
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with self.file.open("a", encoding="utf-8") as stream:
                stream.write(cell.model_dump_json() + "\n")
        except OSError as error:
            raise cannot_write(self.file, error) from error
