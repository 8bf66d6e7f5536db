"""Records as tables on the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from unmerge.report.decomposition_table import plain
from unmerge.training.adapters import AdapterRecord
from unmerge.verification.matrix import AblationMatrix

#: what a column takes beside its text, and a table beside its columns
_PADDING, _EDGES = 3, 2


def show_matrix(matrix: AblationMatrix, console: Console | None = None) -> None:
    """Exact match by what was removed; the removed skill's own column in brackets."""
    console = console or plain()
    console.print("exact match by what was removed")
    first = max(len(row.removed or "nothing") for row in matrix.rows) + _PADDING
    for tasks in _fitting(matrix.tasks, console.width - first - _EDGES):
        table = Table(box=SIMPLE_HEAD, padding=(0, 1))
        table.add_column("removed", no_wrap=True, min_width=first - _PADDING)
        for task in tasks:
            table.add_column(task, justify="right", no_wrap=True)
        for row in matrix.rows:
            own = matrix.task_of.get(row.removed or "")
            cells = [f"[{row.scores[task]:.2f}]" if task == own else f"{row.scores[task]:.2f}" for task in tasks]
            table.add_row(row.removed or "nothing", *cells)
        console.print(table)
    before = matrix.rows[0].scores
    for row in matrix.rows[1:]:
        own = matrix.task_of[row.removed or ""]
        task, fall = matrix.largest_fall(row)
        verdict = "gone, the others stay" if matrix.specific(row) else "NOT specific" if matrix.measurable(row) else "too weak before to tell"
        console.print(
            f"- {row.coefficient:.4f} x {row.removed}: {own} {before[own]:.2f} -> {matrix.left(row):.2f}, "
            f"largest other fall {fall:+.2f} ({task}): {verdict}"
        )


def _fitting(names: Sequence[str], width: int) -> list[list[str]]:
    """Names in as few groups as fit a width, in order."""
    groups: list[list[str]] = [[]]
    left = width
    for name in names:
        taken = max(len(name), 6) + _PADDING
        if taken > left and groups[-1]:
            groups.append([])
            left = width
        groups[-1].append(name)
        left -= taken
    return groups


def show_adapters(records: Mapping[str, AdapterRecord], console: Console | None = None) -> None:
    """Trained adapters with their held-out scores."""
    table = Table(title_justify="left")
    for title in ("adapter", "held-out score", "scored by", "items", "seconds"):
        table.add_column(title, justify="left" if title in ("adapter", "scored by") else "right")
    for name, record in records.items():
        score = record.held_out_score if record.held_out_exact_match is None else record.held_out_exact_match
        by = record.scored_by or ("" if score is None else "exact match")
        table.add_row(name, "" if score is None else f"{score:.3f}", by, str(record.held_out_items), f"{record.seconds:.1f}")
    (console or plain()).print(table)
