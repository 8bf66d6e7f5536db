"""unmerge study."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from unmerge.cli.progress import bars


def study(
    design: Annotated[Path, typer.Argument(help="What to compare, in YAML; studies/zoo.yml is an example.", metavar="STUDY.yml")],
    out: Annotated[Path, typer.Option("--out", help="Where to put everything; a second run goes on from what is there.")],
    report: Annotated[Path | None, typer.Option("--report", help="Write the results as a Markdown page, its figures into images/ beside it.")] = None,
    jobs: Annotated[int | None, typer.Option("--jobs", min=1, help="Processes; one for each core by default.")] = None,
    keep_targets: Annotated[bool, typer.Option("--keep-targets", help="Leave the targets in the folder.")] = False,
) -> None:
    """Compare all methods on many targets whose components are known (Phases 2 to 4)."""
    from unmerge.report.study_page import show_study, write_study_page
    from unmerge.studies.design import StudyDesign
    from unmerge.studies.study import run_study

    parsed = StudyDesign.read(design)
    with bars() as progress:
        run_study(parsed, out, progress.steps("decomposing"), jobs or os.cpu_count() or 1, keep=keep_targets)
    show_study(out)
    if report:
        write_study_page(out, report)
    typer.echo(f"Records: {out}/*.parquet, {out}/study.json" + (f"   Page: {report}" if report else ""))
