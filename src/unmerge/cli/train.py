"""unmerge train."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unmerge.cli.arguments import Out
from unmerge.cli.progress import bars


def train(recipe: Annotated[Path, typer.Argument(help="A training recipe in YAML.")], out: Out) -> None:
    """Train the adapters of a recipe (Phase 1)."""
    from unmerge.report.table import show_adapters
    from unmerge.training.adapters import train_adapters
    from unmerge.training.recipe import TrainingRecipe

    parsed = TrainingRecipe.read(recipe)
    with bars() as progress:
        records = train_adapters(parsed, out, progress.steps)
    show_adapters(records)
