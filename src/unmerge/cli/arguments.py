"""Arguments that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Target = Annotated[Path, typer.Argument(help="A PEFT adapter or a checkpoint, a folder.")]
Base = Annotated[Path | None, typer.Option("--base", help="The base model's folder. An adapter among plain LoRA adapters needs none.")]
Dictionary = Annotated[
    list[Path], typer.Option("--dictionary", help="A folder of adapters or checkpoints, each in its own folder, named by it. May be given again.")
]
Method = Annotated[str | None, typer.Option("--method", help="How to decompose: dot, nnls or omp. Default: nnls.")]
Out = Annotated[Path, typer.Option("--out", help="The folder to make.")]
