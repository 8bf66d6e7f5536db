"""unmerge decompose."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unmerge.cli.arguments import Base, Dictionary, Method, Space
from unmerge.cli.friendly import warn
from unmerge.cli.progress import bars


def decompose(
    dictionary: Dictionary,
    target: Annotated[
        Path | None, typer.Argument(help="A PEFT adapter or a checkpoint: a folder or a name on the hub. None with --check-dictionary.")
    ] = None,
    base: Base = None,
    method: Method = None,
    space: Space = None,
    json: Annotated[Path | None, typer.Option("--json", help="Write the result to this file as well.")] = None,
    modules: Annotated[
        str | None,
        typer.Option(
            "--modules",
            help="Look at these modules only: a regular expression found in the names of tensors, such as self_attn or 'layers.(0|1).'. "
            "Default: all.",
        ),
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option(
            "--cache",
            help="Keep the dictionary's inner products and the files' hashes in this folder, and use what is there. Default: the folder that "
            "UNMERGE_CACHE names, or none.",
        ),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            "--device",
            help="Where large tensors are worked on: cpu, or a card such as cuda or cuda:1. Default: what UNMERGE_DEVICE names, else the first "
            "card there is, else cpu.",
        ),
    ] = None,
    check_dictionary: Annotated[
        bool,
        typer.Option("--check-dictionary", help="Report on the dictionary alone: duplicates, conditioning, modules that would be blind."),
    ] = False,
) -> None:
    """Name the known components of a target, with their coefficients."""
    from unmerge.core.errors import BadInput
    from unmerge.core.settings import settings
    from unmerge.vectors import chosen_device

    with settings(device or None, cache):
        if device:
            chosen_device()  # refused now, not in the middle of the work
        if check_dictionary:
            _check(dictionary, base, json, {"a target": target, "--method": method, "--space": space, "--modules": modules})
            return
        if target is None:
            raise BadInput(expected="a target", found="none", where="decompose", hint="name one, or give --check-dictionary")
        _run(target, dictionary, base, method, space, modules, json)


def _run(
    target: Path, dictionary: list[Path], base: Path | None, method: str | None, space: str | None, modules: str | None, json: Path | None
) -> None:
    """Decompose one target, and show the result."""
    from unmerge.core.records import write_json
    from unmerge.decomposition import decompose as run
    from unmerge.decomposition import open_base, open_dictionary, open_vector
    from unmerge.decomposition.dictionary import only
    from unmerge.decomposition.run import DEFAULT_METHOD, DEFAULT_SPACE
    from unmerge.report.decomposition_table import show_decomposition

    opened = open_base(base) if base else None
    atoms = open_dictionary(dictionary, opened).only(modules)
    vector = only(open_vector(target, opened), modules)
    with bars() as progress:
        result = run(vector, atoms, opened, method or DEFAULT_METHOD, progress.over("inner products"), space or DEFAULT_SPACE)
    warn(result.warnings)
    if json:
        write_json(json, result)
    show_decomposition(result)


def _check(dictionary: list[Path], base: Path | None, json: Path | None, others: dict[str, str | Path | None]) -> None:
    """Report on the dictionary; whatever belongs to a target is refused."""
    from unmerge.core.errors import BadInput
    from unmerge.core.records import write_json
    from unmerge.decomposition import open_base, open_dictionary
    from unmerge.decomposition.check import check_dictionary
    from unmerge.report.dictionary import show_dictionary

    for what, given in others.items():
        if given is not None:
            raise BadInput(expected="a dictionary alone", found=f"{what} ({given})", where="--check-dictionary", hint="leave one of the two out")
    opened = open_base(base) if base else None
    atoms = open_dictionary(dictionary, opened)
    with bars() as progress:
        check = check_dictionary(atoms, opened, progress.over("inner products"))
    warn(check.warnings)
    if json:
        write_json(json, check)
    show_dictionary(check)
