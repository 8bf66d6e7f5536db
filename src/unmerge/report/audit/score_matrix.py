"""The matrix of the verification: what was removed down, tasks across, the score in the cell."""

from __future__ import annotations

from xml.etree import ElementTree as ET

from unmerge.report.audit.svg import DEEP, add, drawing, tip
from unmerge.verification.record import MeasuredTask, Verification, VerifiedComponent

_WIDE, _NARROW, _MANY, _HIGH, _LETTER = 30.0, 23.0, 20, 26.0, 6.6


def scores_without(verification: Verification, measured: VerifiedComponent) -> dict[str, float | None]:
    """The score of every task with one component removed; None where the record does not hold it."""
    scores: dict[str, float | None] = {task.name: None for task in verification.tasks}
    scores |= {change.task: change.after for change in measured.changes}
    if len(measured.tasks) == 1:
        scores[measured.tasks[0]] = measured.after
    for way in measured.ways:
        if way.name == "whole":
            scores |= way.scores
    return scores


def in_order(verification: Verification) -> list[MeasuredTask]:
    """Tasks as the page has them: those of the components, other skills with the best first, general ones."""
    own = [task for measured in verification.components for task in measured.tasks]
    return sorted(verification.tasks, key=lambda task: (task.kind == "general", own.index(task.name) if task.name in own else len(own), -task.before))


def score_matrix(verification: Verification) -> ET.Element:
    """All removals by all tasks; the removed component's own tasks are framed."""
    tasks, removals = in_order(verification), verification.components
    wide = _WIDE if len(tasks) <= _MANY else _NARROW
    names = ["nothing removed", *(f"without {measured.removed}" for measured in removals)]
    left = 14 + _LETTER * max(map(len, names))
    top = 18 + 0.72 * _LETTER * max(len(task.name) for task in tasks)
    right = 0.72 * _LETTER * len(tasks[-1].name)
    gap = 8.0
    general = [task.kind == "general" for task in tasks]
    across = [left + wide * place + (gap if general[place] else 0.0) for place in range(len(tasks))]
    title, described = "Scores with each component removed", "The table below the figure holds the same values"
    svg = drawing(across[-1] + wide + right, top + _HIGH * len(names) + 6, title, described)
    for task, x in zip(tasks, across, strict=True):
        look = "label faint" if task.kind == "general" else "label"
        add(svg, "text", task.name, transform=f"translate({x + wide / 2 + 4:.1f} {top - 8:.1f}) rotate(-45)", class_=look)
    before = {task.name: task.before for task in tasks}
    for row, name in enumerate(names):
        add(svg, "text", name, x=left - 8, y=top + _HIGH * (row + 0.5), class_="label end middle")
        scores: dict[str, float | None] = {**before} if row == 0 else scores_without(verification, removals[row - 1])
        own = set() if row == 0 else set(removals[row - 1].tasks)
        for column, (task, x) in enumerate(zip(tasks, across, strict=True)):
            score = scores[task.name]
            corner = (x + 1, top + _HIGH * row + 1)
            rect = _rect(svg, corner, wide, "none" if score is None else "heat")
            rect.set("data-at", f"{row} {column}")
            tip(rect, f"{task.name}, {name}: {_change(before[task.name], score) if row else f'{task.before:.3f}'}")
            if score is not None:
                rect.set("fill-opacity", f"{score:.2f}")
                look = "value centre middle" + (" on" if score > DEEP else " faint" if score == 0 else "")
                add(svg, "text", _short(score), x=x + wide / 2, y=top + _HIGH * (row + 0.5), class_=look)
            if task.name in own:
                _rect(svg, corner, wide, "frame")
    return svg


def _rect(svg: ET.Element, corner: tuple[float, float], wide: float, look: str) -> ET.Element:
    return add(svg, "rect", x=corner[0], y=corner[1], width=wide - 2, height=_HIGH - 2, class_=look)


def _change(before: float, after: float | None) -> str:
    return "not measured" if after is None else f"{before:.3f} to {after:.3f} ({after - before:+.3f})"


def _short(score: float) -> str:
    """Two decimals, without what all share."""
    return f"{score:g}" if score in (0, 1) else f"{score:.2f}".removeprefix("0")
