"""Finished pieces of long work, a line of JSON each, kept as soon as they are finished.

A kill can tear the last line only. A line that is no record is made again; ``mend`` takes it out before the next one is written.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from pydantic import BaseModel, ValidationError

from unmerge.core.records import cannot_write, write_text

Record = TypeVar("Record", bound=BaseModel)


@dataclass(frozen=True)
class Journal(Generic[Record]):
    """Records of one kind.

    Attributes:
        file: JSON lines.
        kind: the record's class.
    """

    file: Path
    kind: type[Record]

    def records(self) -> list[Record]:
        """What is finished, in the order of finishing."""
        if not self.file.exists():
            return []
        records = []
        for line in self.file.read_text(encoding="utf-8", errors="replace").splitlines():
            with suppress(ValidationError):  # torn, or of another version
                records.append(self.kind.model_validate_json(line))
        return records

    def mend(self) -> None:
        """Take out what is no record."""
        if self.file.exists():
            write_text(self.file, "".join(record.model_dump_json() + "\n" for record in self.records()))

    def add(self, record: Record) -> None:
        """Keep a finished record."""
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with self.file.open("a", encoding="utf-8") as stream:
                stream.write(record.model_dump_json() + "\n")
        except OSError as error:
            raise cannot_write(self.file, error) from error
