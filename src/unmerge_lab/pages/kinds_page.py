"""A page of figures by kind of target, by group, and of all, from the record of a benchmark."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from unmerge.core.records import read_json

#: figures of some targets
Row = Mapping[str, Any]


def write_kinds_page(purpose: str, name: str, head: str, table: str, cells: Callable[[Row], list[Any]], tail: str = "") -> None:
    """Write ``docs/NAME-measured.md`` from ``runs/NAME.json``, or as the command line says.

    Args:
        purpose: what the program is for.
        name: of the page and the record.
        head: the text before the table.
        table: its first two lines.
        cells: of a row, beside its name.
        tail: the text after the table.
    """
    parser = argparse.ArgumentParser(description=purpose)
    parser.add_argument("--json", type=Path, default=Path(f"runs/{name}.json"))
    parser.add_argument("--out", type=Path, default=Path(f"docs/{name}-measured.md"))
    arguments = parser.parse_args()
    record = read_json(arguments.json, "the record of a benchmark")
    rows = {**record["kinds"], **{f"all {group}": row for group, row in record["groups"].items()}, "all": record["all"]}
    made = record["all"]["targets"]
    short = "" if made == record["planned"] else f"So far {made} of {record['planned']} targets.\n\n"
    lines = ["| " + " | ".join(map(str, [row, *cells(figures)])) + " |\n" for row, figures in rows.items()]
    arguments.out.write_text(head + short + table + "".join(lines) + tail, encoding="utf-8")
