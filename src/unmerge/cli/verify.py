"""unmerge verify."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unmerge.cli.arguments import Dictionary, Limit, Method, Target, Tasks
from unmerge.cli.friendly import warn
from unmerge.cli.progress import bars


def verify(
    target: Target,
    base: Annotated[Path, typer.Option("--base", help="The base model: a folder or a name on the hub.")],
    dictionary: Dictionary,
    tasks: Tasks = None,
    remove: Annotated[
        list[str] | None,
        typer.Option("--remove", help="Only this component, NAME or NAME=COEFFICIENT. May be given again. Default: every component that is found."),
    ] = None,
    json: Annotated[
        Path | None,
        typer.Option("--json", help="Write the result to this file, and the score of every item beside it; an interrupted run goes on from those."),
    ] = None,
    method: Method = None,
    harness: Annotated[
        bool, typer.Option("--harness", help="Score with lm-evaluation-harness also the tasks that could be scored by exact match.")
    ] = False,
    limit: Limit = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the controls.")] = 0,
) -> None:
    """Take out one component after the other, and measure what that does: is exactly its skill gone?"""
    from unmerge.core.records import write_json
    from unmerge.decomposition import decompose, open_base, open_dictionary, open_vector
    from unmerge.decomposition.run import DEFAULT_METHOD
    from unmerge.report.verification import show_predictions, show_verification
    from unmerge.verification.ablate import parse_removals
    from unmerge.verification.run import Request
    from unmerge.verification.run import verify as run
    from unmerge.verification.tasks import read_tasks

    chosen = parse_removals(remove or [])
    opened = open_base(base)
    atoms = open_dictionary(dictionary, opened)
    vector = open_vector(target, opened)
    listed = read_tasks(tasks, atoms)
    suite = listed.suite(harness=harness, limit=limit)
    with bars() as progress:
        found = decompose(vector, atoms, opened, method or DEFAULT_METHOD, progress.over("inner products"))
        warn(found.warnings)
        items = json and json.with_suffix(".items.jsonl")
        result = run(Request(vector, opened, atoms, found, listed, chosen, seed), suite, items, show_predictions, progress.steps("measuring"))
    warn(warning for warning in result.warnings if warning not in found.warnings)
    if json:
        write_json(json, result)
    show_verification(result)
