"""Making targets and adapters."""

from __future__ import annotations

from pathlib import Path

from unmerge.api.inputs import Place
from unmerge.core.progress import Progress, Silent
from unmerge.recipes.merge import SHARD, MergeRecord
from unmerge.recipes.merge import merge as run
from unmerge.training import AdapterRecord, TrainingRecipe, train_adapters


def merge(recipe: Place, *, out: Place, seed: int = 0, shard: int = SHARD) -> MergeRecord:
    """Run a mergekit configuration.

    Args:
        recipe: a mergekit YAML file; ``recover`` writes one. Adapters may be named by their folder alone.
        out: the folder to make.
        seed: of the methods that draw random masks.
        shard: bytes of a file of weights at most.

    Returns:
        The record that lies in ``out/merge.json``.

    Raises:
        BadInput: no such file, broken YAML, or a configuration that mergekit refuses.
        BadOutput: the folder exists, or cannot be written.
        MissingExtra: mergekit is not installed.
    """
    return run(Path(recipe), Path(out), seed, shard)


def train(recipe: Place | TrainingRecipe, *, out: Place, tasks: Place | None = None, progress: Progress | None = None) -> dict[str, AdapterRecord]:
    """Train the adapters of a recipe.

    Args:
        recipe: a YAML file, or a recipe with absolute paths.
        out: the folder to make, with one PEFT adapter a name. A run that was cut short is taken up where it stopped.
        tasks: a folder to write the held-out items to, for ``verify``.
        progress: is told how far the work is.

    Returns:
        The records, by the adapters' names.

    Raises:
        BadInput: a recipe or data that cannot be read.
        BadOutput: the folder exists, or cannot be written.
        MissingExtra: a library for training is not installed.
    """
    read = recipe if isinstance(recipe, TrainingRecipe) else TrainingRecipe.read(Path(recipe))
    return train_adapters(read, Path(out), (progress or Silent()).steps, None if tasks is None else Path(tasks))
