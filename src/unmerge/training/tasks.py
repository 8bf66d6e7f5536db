"""The tasks of a recipe as a folder that ``unmerge verify --tasks`` takes (``evaluation.task_files`` says what lies in it)."""

from __future__ import annotations

from pathlib import Path

import yaml

from unmerge.core.examples import Example, write_examples
from unmerge.core.records import write_text
from unmerge.evaluation.checks import LmEval
from unmerge.evaluation.task_files import CHECK, GENERAL_TASKS, HELD_OUT, TASK_LIST
from unmerge.training.recipe import TrainingRecipe


def write_tasks(folder: Path, recipe: TrainingRecipe, held_out: dict[str, list[Example]]) -> None:
    """Write a recipe's tasks.

    Args:
        folder: to write to; what others put there is left alone.
        recipe: whose tasks.
        held_out: by adapter; one without any has no task.
    """
    owned: dict[str, list[str]] = {}
    for name, entry in recipe.adapters.items():
        if isinstance(entry.metric, LmEval):
            owned[name] = [entry.metric.task]
        elif examples := held_out.get(name):
            owned[name] = [name]
            write_examples(folder / f"{name}{HELD_OUT}", examples)
            if entry.metric is not None:
                write_text(folder / f"{name}{CHECK}", yaml.safe_dump(entry.metric.model_dump(mode="json"), sort_keys=False))
    general = {GENERAL_TASKS: recipe.general} if recipe.general else {}
    write_text(folder / TASK_LIST, yaml.safe_dump({**owned, **general}, sort_keys=False))
