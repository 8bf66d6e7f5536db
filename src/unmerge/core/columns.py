"""Results as tables: columns by name, as a pandas DataFrame where pandas is installed, and as HTML for a notebook."""

from __future__ import annotations

import html
import importlib.util
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pandas import DataFrame

Columns = dict[str, list[Any]]


def frame_of(columns: Columns) -> DataFrame | Columns:
    """The columns as a pandas DataFrame; as they are where pandas is not installed."""
    if importlib.util.find_spec("pandas") is None:
        return columns
    import pandas

    return pandas.DataFrame(columns)


def html_table(columns: Mapping[str, Sequence[object]], caption: str) -> str:
    """An HTML table with a caption; whatever the columns hold is escaped, numbers are written with four digits."""
    head = "".join(f"<th>{html.escape(name)}</th>" for name in columns)
    rows = zip(*columns.values(), strict=True)
    body = "".join("<tr>" + "".join(f"<td>{_cell(value)}</td>" for value in row) + "</tr>" for row in rows)
    return f"<table><caption>{html.escape(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else html.escape(", ".join(map(str, value)) if isinstance(value, list) else str(value))
