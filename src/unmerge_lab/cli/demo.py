"""unmerge demo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unmerge.cli.friendly import warn
from unmerge.cli.progress import bars


def demo(
    out: Annotated[Path, typer.Option("--out", help="Where to put everything; a second run goes on from what is there.")] = Path("runs/demo"),
) -> None:
    """Do the main job on the embedded zoo: train, merge, decompose, subtract, prove, and write the audit's page."""
    from unmerge.report.audit import PAGE
    from unmerge.report.decomposition_table import show_decomposition
    from unmerge.report.matrix import plot_matrix
    from unmerge.report.table import show_matrix
    from unmerge_lab.studies.demo import AUDIT, run_demo

    with bars() as progress:
        result = run_demo(out, progress.steps, progress.over)
    warn(result.decomposition.warnings)
    show_decomposition(result.decomposition)
    show_matrix(result.matrix)
    plot_matrix(result.matrix, out / "matrix")
    typer.echo(f"\nRecords: {out}/*.json   Figure: {out}/matrix.png, {out}/matrix.svg")
    typer.echo(f"The audit, a page for the browser: {out / AUDIT / PAGE}")
