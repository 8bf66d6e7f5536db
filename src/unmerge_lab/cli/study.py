"""unmerge study."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from unmerge.cli.progress import bars


def study(
    design: Annotated[Path, typer.Argument(help="What to compare, in YAML; studies/zoo.yml is an example.", metavar="STUDY.yml")],
    out: Annotated[Path | None, typer.Option("--out", help="Where to put everything; a second run goes on from what is there.")] = None,
    report: Annotated[Path | None, typer.Option("--report", help="Write the results as a Markdown page, its figures into images/ beside it.")] = None,
    jobs: Annotated[int | None, typer.Option("--jobs", min=1, help="Processes; one for each core by default.")] = None,
    keep_targets: Annotated[bool, typer.Option("--keep-targets", help="Leave the targets in the folder.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what it will take, and do nothing.")] = False,
) -> None:
    """Compare all methods on many targets whose components are known (Phases 2 to 4); train and verify as well, where the file says so (1 to 5)."""
    from unmerge.core.errors import BadInput
    from unmerge_lab.report.phases import show_phases, show_plan
    from unmerge_lab.report.study_page import show_study, write_study_page
    from unmerge_lab.studies.design import StudyDesign
    from unmerge_lab.studies.phases import STUDY, Watches, plan_phases, run_phases
    from unmerge_lab.studies.study import run_study

    parsed = StudyDesign.read(design)
    if dry_run:
        show_plan(plan_phases(parsed))
        return
    if out is None:
        raise BadInput(expected="a folder to make", found="none", where="--out", hint="name one, or give --dry-run")
    processes = jobs or os.cpu_count() or 1
    with bars() as progress:
        if parsed.train is None:
            place, whole = out, None
            run_study(parsed, out, progress.steps("decomposing"), processes, keep=keep_targets)
        else:
            place = out / STUDY
            whole = run_phases(parsed, out, Watches(progress.steps, progress.over), processes, keep=keep_targets)
    show_study(place)
    if whole:
        show_phases(whole)
    if report:
        write_study_page(place, report)
    typer.echo(f"Records: {place}/*.parquet, {place}/study.json" + (f"   Page: {report}" if report else ""))
