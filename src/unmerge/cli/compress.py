"""unmerge compress."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unmerge.cli.arguments import Base, Dictionary, Out
from unmerge.cli.progress import bars


def compress(
    dictionary: Dictionary,
    out: Out,
    target: Annotated[Path | None, typer.Argument(help="A PEFT adapter or a checkpoint, to be compressed with the dictionary.")] = None,
    base: Base = None,
    entries: Annotated[int, typer.Option("--entries", help="How many entries to keep, over all tensors.")] = 100_000,
    mask: Annotated[
        str, typer.Option("--mask", help="Whose largest entries: those of the dictionary, of the target, or of both.", metavar="WHOSE")
    ] = "dictionary",
) -> None:
    """Write task vectors as files of their largest entries (Phase 3)."""
    from unmerge.core.errors import unknown_name
    from unmerge.decomposition import open_base, open_dictionary, open_vector
    from unmerge.decomposition.compressed import Over
    from unmerge.decomposition.compressed import compress as run

    if mask not in list(Over):
        raise unknown_name(mask, Over, "--mask")
    opened = open_base(base) if base else None
    atoms = open_dictionary(dictionary, opened)
    vector = open_vector(target, opened) if target else None
    with bars() as progress:
        record = run(atoms, vector, opened, out, entries, Over(mask), progress.over("compressing"))
    vectors = len(record.dictionary) + len(record.targets)
    typer.echo(f"{out}: {vectors} task vectors at {record.entries} entries of {len(record.tensors)} tensors")
