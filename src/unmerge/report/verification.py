"""A verification on the terminal: first what is predicted, then what came."""

from __future__ import annotations

from collections.abc import Mapping

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from unmerge.report.decomposition_table import plain
from unmerge.verification.record import Power, Prediction, Verification, VerifiedComponent


def show_predictions(power: Power, predictions: Mapping[str, Prediction], console: Console | None = None) -> None:
    """How many items are needed, and what is to come of each removal; said before anything is measured on the target."""
    console = console or plain()
    console.print(
        f"{power.needed} items are needed to see a fall of {power.fall:.2f} with a power of {power.power:.0%} at a level of {power.level:.2g}; "
        f"{power.needed_for_small} for one of {power.small_fall:.2f} elsewhere."
    )
    if power.short:
        console.print(f"Too few: {', '.join(power.short)}.")
    for name, prediction in predictions.items():
        stays = f"; {', '.join(prediction.stays)} stay" if prediction.stays else ""
        console.print(
            f"Predicted: without {name}, {', '.join(prediction.falls)} falls from {prediction.before:.2f} to {prediction.after:.2f}{stays}."
        )


def show_verification(result: Verification, console: Console | None = None) -> None:
    """Every component with its verdict, then the reasons, and every fall that is listed."""
    console = console or plain()
    if not result.components:
        console.print(f"{result.target.path}: no component of the dictionary was found, so there is nothing to remove.")
        return
    table = Table(box=SIMPLE_HEAD, padding=(0, 1))
    for title in ("removed", "before", "predicted", "after", "others", "general", "best control", "verdict"):
        table.add_column(title, justify="left" if title in ("removed", "verdict") else "right")
    for component in result.components:
        table.add_row(*_row(component))
    console.print(table)
    for component in result.components:
        console.print(f"- {component.removed}: {component.verdict}. {'; '.join(component.because)}.")
        for change in component.changes:
            if change.explanation:
                console.print(f"    {change.task} falls from {change.before:.2f} to {change.after:.2f}: {change.explanation}.")
    if result.without_task:
        console.print(f"Not removed, for want of a task: {', '.join(result.without_task)}.")
    if result.least_disturbing:
        console.print(f"The way to subtract that disturbs the other skills least: {result.least_disturbing}.")


def _row(component: VerifiedComponent) -> list[str]:
    lowest = min((control.after for control in component.controls), default=None)
    return [
        f"{component.coefficient:.4f} x {component.removed}",
        f"{component.before:.2f}",
        f"{component.prediction.after:.2f}",
        f"{component.after:.2f}",
        f"{component.mean_absolute_change:.3f}",
        "" if component.general_change is None else f"{component.general_change:.3f}",
        "" if lowest is None else f"{lowest:.2f}",
        component.verdict,
    ]
