"""A zoo's record as a table on the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from unmerge.report.decomposition_table import plain
from unmerge_lab.zoo.build import ZooRecord


def show_zoo(zoo: ZooRecord, console: Console | None = None) -> None:
    """What a zoo's base and adapters score."""
    table = Table(title_justify="left")
    for title in ("task", "base", "its adapter", "group"):
        table.add_column(title, justify="left" if title in ("task", "group") else "right")
    for task, score in zoo.base.items():
        adapter = f"{zoo.adapters[task]:.3f}" if task in zoo.adapters else ""
        group = "known" if task in zoo.known else "unknown" if task in zoo.unknown else "general" if task not in zoo.adapters else ""
        table.add_row(task, f"{score:.3f}", adapter, group)
    (console or plain()).print(table)
