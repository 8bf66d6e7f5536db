"""A study of all phases as text: what it will take, and what came out."""

from __future__ import annotations

from collections import Counter

from rich.console import Console
from rich.table import Table

from unmerge.report.decomposition_table import plain
from unmerge.report.plan import show_training_plan
from unmerge.report.table import show_adapters
from unmerge_lab.report.phases_record import PhasesPlan, PhasesRecord


def show_plan(plan: PhasesPlan, console: Console | None = None) -> None:
    """What a study will take, phase by phase."""
    console = console or plain()
    if plan.training:
        console.print("Phase 1, training")
        show_training_plan(plan.training, console)
    total, groups = sum(plan.targets.values()), ", ".join(f"{count} {group}" for group, count in plan.targets.items())
    console.print(f"Phase 2, targets: {total} ({groups}) of {plan.known} known and {plan.unknown} unknown adapters")
    console.print(f"  on disk, each while it is in use: {1024 * plan.target_gib:.0f} MiB, one for every job")
    console.print(f"Phases 3 and 4, decompositions: {plan.cells}, {plan.cells // max(total, 1)} of each target")
    if plan.verified:
        limit = f"at most {plan.items} items of " if plan.items else ""
        console.print(
            f"Phase 5, verification: {plan.verified} targets, {plan.removals} components removed if all are found, "
            f"{plan.conditions} states of a model, each scored on {limit}{plan.tasks} tasks, ~{plan.hours:.0f} hours"
        )


def show_phases(record: PhasesRecord, console: Console | None = None) -> None:
    """The adapters, and the verdicts on every removal."""
    console = console or plain()
    show_adapters(record.adapters, console)
    if not record.verdicts:
        return
    table = Table(title_justify="left")
    for title in ("target", "removed", "before", "after", "verdict"):
        table.add_column(title, justify="right" if title in ("before", "after") else "left")
    for one in record.verdicts:
        table.add_row(one.target, one.removed, f"{one.before:.3f}", f"{one.after:.3f}", one.verdict)
    console.print(table)
    counts = Counter(one.verdict for one in record.verdicts)
    console.print(", ".join(f"{verdict}: {count}" for verdict, count in counts.most_common()))
