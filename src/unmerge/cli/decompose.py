"""unmerge decompose."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unmerge.cli.arguments import Base, Dictionary, Method, Space, Target
from unmerge.cli.friendly import warn
from unmerge.cli.progress import bars


def decompose(
    target: Target,
    dictionary: Dictionary,
    base: Base = None,
    method: Method = None,
    space: Space = None,
    json: Annotated[Path | None, typer.Option("--json", help="Write the result to this file as well.")] = None,
) -> None:
    """Name the known components of a target, with their coefficients."""
    from unmerge.core.records import write_json
    from unmerge.decomposition import decompose as run
    from unmerge.decomposition import open_base, open_dictionary, open_vector
    from unmerge.decomposition.run import DEFAULT_METHOD, DEFAULT_SPACE
    from unmerge.report.table import show_decomposition

    opened = open_base(base) if base else None
    atoms = open_dictionary(dictionary, opened)
    vector = open_vector(target, opened)
    with bars() as progress:
        result = run(vector, atoms, opened, method or DEFAULT_METHOD, progress.over("inner products"), space or DEFAULT_SPACE)
    warn(result.warnings)
    if json:
        write_json(json, result)
    show_decomposition(result)
