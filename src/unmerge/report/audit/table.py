"""A table of the page: what is shown, and the same with all its figures as CSV."""

from __future__ import annotations

import base64
import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

#: a cell that a spreadsheet would run
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True)
class Cell:
    """One value.

    Attributes:
        shown: on the page; text is escaped, Markup is not.
        value: in the file; None for nothing.
        kind: ``number`` or ``text``.
        tip: said when it is pointed at.
        look: good, bad or unsure; None for what is neither.
    """

    shown: str | Markup
    value: str | float | int | None = None
    kind: str = "text"
    tip: str | None = None
    look: str | None = None


@dataclass(frozen=True)
class Table:
    """Rows of cells.

    Attributes:
        name: of the file.
        caption: what it shows.
        heads: a title for each column.
        rows: of cells, the first of each being the row's name.
    """

    name: str
    caption: str
    heads: Sequence[str]
    rows: Sequence[Sequence[Cell]]

    @property
    def file(self) -> str:
        """The name of the download."""
        return f"{self.name}.csv"

    @property
    def csv(self) -> str:
        """All rows, with figures as they are in the record."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(self.heads)
        writer.writerows([_plain(cell.value) for cell in row] for row in self.rows)
        return out.getvalue()

    @property
    def link(self) -> str:
        """The file as a link that fetches nothing."""
        return data_uri(self.csv, "text/csv")


def data_uri(text: str, kind: str) -> str:
    """A text as a link of its own."""
    return f"data:{kind};charset=utf-8;base64,{base64.b64encode(text.encode()).decode()}"


def word(text: str, tip: str | None = None, look: str | None = None) -> Cell:
    """A cell of text."""
    return Cell(text, text, tip=tip, look=look)


def number(value: float | int | None, form: str = ".4f", tip: str | None = None) -> Cell:
    """A cell with a number as ``form`` writes it, empty without one."""
    if value is None:
        return Cell("", None, "number", tip)
    return Cell(format(value, form), value, "number", tip if tip is not None else json.dumps(value))


def _plain(value: str | float | int | None) -> str | float | int | None:
    """Text that no spreadsheet takes for a formula."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
