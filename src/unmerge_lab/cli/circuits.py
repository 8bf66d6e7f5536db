"""unmerge circuits: train, decompose, intervene, report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unmerge.cli.arguments import Out
from unmerge.cli.friendly import friendly
from unmerge.cli.progress import bars

app = typer.Typer(help="Circuits from the loss landscape (L3D), on toy models and on the zoo's base.", no_args_is_help=True, rich_markup_mode=None)

Folder = Annotated[Path, typer.Argument(help="A folder that 'unmerge circuits train' made.")]


def train(
    toy: Annotated[str, typer.Argument(help="tms, parallel, tmcs, high-rank, high-rank-shared, square, square-5, square-early or square-5-early.")],
    out: Out,
    models: Annotated[int | None, typer.Option("--models", min=1, help="How many to keep; by default what the page of results rests on.")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the first model.")] = 0,
) -> None:
    """Train toy models whose circuits are known."""
    from unmerge_lab.circuits.experiments import train_toy

    with bars() as progress:
        record = train_toy(toy, out, models, seed, progress.steps(f"training {toy}"))
    typer.echo(f"{out}: {len(record['seeds'])} models, {len(record['discarded'])} discarded, error at most {max(record['errors']):.4f}")


def decompose(
    folder: Folder,
    subnetworks: Annotated[
        int | None, typer.Option("--subnetworks", min=1, help="n_v; by default every number and rank of the page of results.")
    ] = None,
    rank: Annotated[int, typer.Option("--rank", min=1, help="Of every tensor's part of a subnetwork.")] = 1,
    form: Annotated[str, typer.Option("--form", help="cp or tucker.")] = "cp",
    share: Annotated[float, typer.Option("--share", help="k, the share of coefficients that is kept.")] = 0.1,
    epochs: Annotated[int | None, typer.Option("--epochs", min=1, help="Passes over the samples.")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the first run.")] = 0,
    baselines: Annotated[bool, typer.Option("--baselines", help="Compare simpler methods and APD instead (tms).")] = False,
) -> None:
    """Find the subnetworks of trained models, and compare them with what is known."""
    from unmerge_lab.circuits.experiments import baselines_toy, decompose_toy, designs_of, settings_for

    designs = [(subnetworks, rank)] if subnetworks else designs_of(folder)
    if baselines:
        with bars() as progress:
            record = baselines_toy(folder, progress.steps("baselines"))
        for name in record["rows"][0]:
            found = [row[name]["matched_97"] for row in record["rows"]]
            typer.echo(f"{folder}: {name}: {sum(found) / len(found):.1f} circuits matched in the mean of {len(found)} models")
        return
    for count, each in designs:
        with bars() as progress:
            settings = settings_for(folder, count, each, form=form, share=share, epochs=epochs, seed=seed)
            record = decompose_toy(folder, settings, progress.steps(f"{count} of rank {each}"))
        errors = [row["reconstruction"] for row in record["rows"]]
        typer.echo(f"{folder}: {count} subnetworks of rank {each}: reconstruction {sum(errors) / len(errors):.3f}, at most {max(errors):.3f}")


def intervene(
    folder: Folder,
    subnetworks: Annotated[
        int | None, typer.Option("--subnetworks", min=1, help="Of which decomposition; by default the smallest with one for every circuit.")
    ] = None,
) -> None:
    """Move subnetworks one at a time, two at once, in the middle layers alone, and until a computation is off."""
    from unmerge_lab.circuits.experiments import intervene_toy

    with bars() as progress:
        record = intervene_toy(folder, subnetworks, progress.steps("moving"))
    values = sorted(circuit["selectivity"] for row in record["rows"] for circuit in row["circuits"])
    typer.echo(f"{folder}: selectivity {values[len(values) // 2]:.1f} in the median, {values[0]:.1f} at least")


def language(
    out: Out,
    block: Annotated[int, typer.Option("--block", min=0, max=3, help="Of the zoo's base.")] = 3,
    subnetworks: Annotated[int, typer.Option("--subnetworks", min=1, help="n_v.")] = 40,
    rank: Annotated[int, typer.Option("--rank", min=1, help="Of a subnetwork in every matrix.")] = 4,
    epochs: Annotated[int, typer.Option("--epochs", min=1, help="Passes over the prompts.")] = 15,
    seed: Annotated[int, typer.Option("--seed", help="Of prompts and decomposition.")] = 0,
) -> None:
    """Decompose a block of the zoo's base, write its subnetworks as adapters, and see whether they are the skills."""
    from unmerge_lab.circuits.language_study import UNLOCKED, study_language

    with bars() as progress:
        record = study_language(out, progress.steps, block=block, subnetworks=subnetworks, rank=rank, epochs=epochs, seed=seed)
    for kind in ("contrastive", "random"):
        rows = record[kind]["tasks"]
        unlocked = sum(row["after"] >= UNLOCKED for row in rows)
        typer.echo(f"{out}: {kind} references: {unlocked} of {len(rows)} skills unlocked by one subnetwork each; adapters in {out}/adapters-{kind}")


def report(
    runs: Annotated[Path, typer.Argument(help="The folder that holds the experiments, each in its own folder.")],
    out: Annotated[Path | None, typer.Option("--out", help="The page to write, HTML that needs nothing beside it.")] = None,
    page: Annotated[Path | None, typer.Option("--page", help="The same as Markdown, its figures into images/ beside it.")] = None,
) -> None:
    """Write the results as a page, ours beside the published values."""
    from unmerge.core.errors import BadInput
    from unmerge_lab.report.circuits_page import write_circuits_page

    if out is None and page is None:
        raise BadInput(expected="--out or --page", found="neither", where="report", hint="say which page to write")
    write_circuits_page(runs, out, page)
    typer.echo(f"Page: {', '.join(str(file) for file in (out, page) if file)}")


for command in (train, decompose, intervene, language, report):
    app.command()(friendly(command))
