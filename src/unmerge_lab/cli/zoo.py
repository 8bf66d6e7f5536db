"""unmerge zoo."""

from __future__ import annotations

from typing import Annotated

import typer

from unmerge.cli.arguments import Out
from unmerge.cli.progress import bars


def zoo(
    out: Out,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Train the base and its adapters from nothing instead of copying the embedded zoo.")
    ] = False,
    seed: Annotated[int, typer.Option("--seed", help="Of data, base and adapters.")] = 0,
) -> None:
    """Write the zoo to a folder: a small base, its adapters, its tasks and the recipe that trains them."""
    from unmerge_lab.report.zoo import show_zoo
    from unmerge_lab.zoo.build import build_zoo
    from unmerge_lab.zoo.embedded import export_zoo

    if rebuild:
        with bars() as progress:
            show_zoo(build_zoo(out, seed, progress.steps))
    else:
        export_zoo(out, seed)
        typer.echo(f"{out}: base, known and unknown adapters, tasks, train.yml")
