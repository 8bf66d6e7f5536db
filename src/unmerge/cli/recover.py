"""unmerge recover."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unmerge.cli.arguments import Dictionary, Target
from unmerge.cli.friendly import warn
from unmerge.cli.progress import bars

#: exit status where no recipe makes the target
NONE_OF_THESE = 3


def recover(
    target: Target,
    dictionary: Dictionary,
    base: Annotated[Path, typer.Option("--base", help="The base model: a folder or a name on the hub.")],
    out: Annotated[Path, typer.Option("--out", help="The mergekit configuration to write; its record is written beside it, as .json.")],
    masks: Annotated[
        Path | None, typer.Option("--masks", help="Write random masks that were read off to this safetensors file (dare, della).")
    ] = None,
) -> None:
    """Recover the mergekit configuration that makes a target, and prove it. Exit status 3: none does."""
    from unmerge.decomposition import open_base, open_dictionary, open_vector
    from unmerge.decomposition.dictionary import notes_of
    from unmerge.recipes.recover import NONE
    from unmerge.recipes.recover import recover as run
    from unmerge.report.recipe import show_recipe

    opened = open_base(base)
    atoms = open_dictionary(dictionary, opened)
    vector = open_vector(target, opened)
    warn(notes_of(opened, [vector, *atoms.atoms], atoms))
    with bars() as progress:
        record = run(vector, atoms, opened, out, progress.over("inner products"), masks)
    show_recipe(record)
    if record.answer == NONE:
        raise typer.Exit(NONE_OF_THESE)
