"""unmerge synth."""

from __future__ import annotations

from typing import Annotated

import typer

from unmerge.cli.arguments import Out
from unmerge.cli.progress import bars


def synth(
    out: Out,
    architecture: Annotated[
        str,
        typer.Option(
            "--architecture",
            help="Whose shapes: Qwen2.5-0.5B, -1.5B, -3B, -7B, -14B or -32B, Llama-3.1-8B, Llama-3.2-1B or -3B, Mistral-7B-v0.3, "
            "or the path of a config.json.",
        ),
    ] = "Qwen2.5-7B",
    layers: Annotated[int | None, typer.Option("--layers", min=1, help="How many of its layers. Default: all.")] = None,
    vocabulary: Annotated[int | None, typer.Option("--vocabulary", min=8, help="Size of the embeddings. Default: the model's own.")] = None,
    modules: Annotated[str, typer.Option("--modules", help="What adapters change: attention, or linear for all linear modules.")] = "linear",
    known: Annotated[int, typer.Option("--known", min=1, help="Adapters in the dictionary.")] = 25,
    unknown: Annotated[int, typer.Option("--unknown", min=0, help="Adapters kept out of it.")] = 5,
    rank: Annotated[int, typer.Option("--rank", min=1, help="Of the adapters.")] = 32,
    norm: Annotated[float, typer.Option("--norm", help="||dW|| over ||W|| of one adapter.")] = 0.003,
    cosine: Annotated[float, typer.Option("--cosine", help="Between two adapters, on average.")] = 0.15,
    leading: Annotated[str, typer.Option("--leading", help="Share of an adapter's square that its leading direction holds: from, to.")] = "0.7,0.9",
    families: Annotated[
        bool, typer.Option("--families", help="Give adapters relatives: continued trainings, shared seeds, one author's, in both halves.")
    ] = False,
    groups: Annotated[str, typer.Option("--groups", help="Which targets, separated by commas; 'none' for no targets.")] = "known,mixed,unknown",
    merges: Annotated[
        str, typer.Option("--merges", help="Of task_arithmetic, linear, ties, dare_linear, dare_ties, separated by commas; 'none' for none.")
    ] = "task_arithmetic,ties,dare_linear",
    adapters: Annotated[bool, typer.Option("--adapters", help="Make an adapter of each group as a target as well (PEFT's cat).")] = False,
    base: Annotated[bool, typer.Option("--base/--no-base", help="Write the base; adapters against adapters need none.")] = True,
    components: Annotated[int, typer.Option("--components", min=2, help="Of each target.")] = 3,
    density: Annotated[float, typer.Option("--density", help="Share of the entries that ties and dare keep.")] = 0.5,
    seed: Annotated[int, typer.Option("--seed", help="Of everything that is drawn.")] = 0,
) -> None:
    """Write a synthetic base, adapters and merges with the real shapes of a model, to measure real sizes without a download."""
    from pydantic import ValidationError

    from unmerge.core.errors import BadInput
    from unmerge_lab.studies.synthetic.make import SynthDesign, synthesise

    try:
        design = SynthDesign(
            architecture=architecture,
            layers=layers,
            vocabulary=vocabulary,
            modules=modules,
            known=known,
            unknown=unknown,
            rank=rank,
            norm=norm,
            cosine=cosine,
            leading=_listed(leading),
            families=families,
            groups=_listed(groups) or ["known"],
            merges=_listed(merges) if _listed(groups) else [],
            adapters=adapters and bool(_listed(groups)),
            base=base,
            components=components,
            density=density,
            seed=seed,
        )
    except ValidationError as error:
        first = error.errors()[0]
        option = f"--{first['loc'][0]}"
        raise BadInput(expected=f"a valid {option}", found=first["msg"], where="synth", hint="see unmerge synth --help") from error
    with bars() as progress:
        record = synthesise(design, out, progress.over("writing"))
    typer.echo(
        f"{out}: {record.weights:,} weights ({record.layers} of {record.layers_of} layers), {design.known} known and {design.unknown} unknown "
        f"adapters, {len(record.targets)} targets"
    )


def _listed(text: str) -> list[str]:
    return [] if text == "none" else [part.strip() for part in text.split(",") if part.strip()]
