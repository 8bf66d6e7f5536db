"""unmerge ablate."""

from __future__ import annotations

from typing import Annotated

import typer

from unmerge.cli.arguments import Base, Dictionary, Method, Out, Target
from unmerge.cli.friendly import warn
from unmerge.cli.progress import bars


def ablate(
    target: Target,
    dictionary: Dictionary,
    remove: Annotated[list[str], typer.Option("--remove", help="The component to subtract, NAME or NAME=COEFFICIENT. May be given again.")],
    out: Out,
    base: Base = None,
    method: Method = None,
    as_adapter: Annotated[bool, typer.Option("--as-adapter", help="Write an adapter that does the subtraction when loaded on the target.")] = False,
) -> None:
    """Subtract a component from a target, with the coefficient found in it unless one is given."""
    from unmerge.decomposition import open_base, open_dictionary, open_vector
    from unmerge.decomposition.run import DEFAULT_METHOD
    from unmerge.verification.ablate import ablate as run
    from unmerge.verification.ablate import coefficients, parse_removals

    asked = parse_removals(remove)
    opened = open_base(base) if base else None
    atoms = open_dictionary(dictionary, opened)
    vector = open_vector(target, opened)
    with bars() as progress:
        removed, warnings = coefficients(vector, atoms, opened, asked, method or DEFAULT_METHOD, progress.over("inner products"))
        warn(warnings)
        record = run(vector, removed, out, as_adapter=as_adapter, watch=progress.over("subtracting"))
    warn(map(str, record.remaining))
    for atom, coefficient in removed:
        typer.echo(f"{out}: {vector.name} - {coefficient:.4f} x {atom.name}")
