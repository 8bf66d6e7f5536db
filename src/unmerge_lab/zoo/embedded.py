"""The zoo that ships with the package, and its copy on disk."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Sequence
from pathlib import Path

import yaml

from unmerge.core.examples import Example, write_examples
from unmerge.core.records import write_text
from unmerge.core.staging import staged
from unmerge.evaluation.task_files import TASK_LIST
from unmerge.training.finetune import Lora, Schedule
from unmerge.training.recipe import AdapterEntry, TrainingRecipe
from unmerge.verification.tasks import ReadyExamples, TaskList
from unmerge_lab import embedded_zoo
from unmerge_lab.zoo.corpus import adapter_examples
from unmerge_lab.zoo.tasks import END, GENERAL, TASKS, Task

#: folders of a zoo
BASE, KNOWN, UNKNOWN, TASK_FILES = "zoo-base", "known", "unknown", "tasks"
#: what adapters record as their base
BASE_NAME = "unmerge/zoo-base"

LORA = Lora(rank=8, alpha=8)
SCHEDULE = Schedule(learning_rate=1e-3, epochs=1, batch_size=32)
EXAMPLES, HELD_OUT = 3520, 64
#: tokens that the longest answer stays below
ANSWER_TOKENS = 48


def held_out(count: int = HELD_OUT) -> dict[str, list[Example]]:
    """Held-out items of every task prompt and of the general tasks, by task."""
    return {task.name: task.held_out(count) for task in (*TASKS, *GENERAL)}


def zoo_tasks() -> TaskList:
    """A task for every adapter, and the general ones, with their held-out items."""
    ready = ReadyExamples(held_out(), "the embedded zoo", "write it with 'unmerge zoo --out DIR' and give --tasks DIR/tasks")
    return TaskList({task.name: (task.name,) for task in TASKS}, tuple(task.name for task in GENERAL), ready=ready)


def export_zoo(out: Path, seed: int = 0) -> None:
    """Copy the embedded zoo to a folder, with its tasks as JSON lines and as a folder for lm-evaluation-harness, and a recipe."""
    with staged(out, {"zoo": seed}) as stage:
        for part in (BASE, KNOWN, UNKNOWN):
            if not stage.has(part):
                with stage.piece(part) as piece:
                    shutil.copytree(embedded_zoo() / part, piece)
        for task in TASKS:
            write_task(stage.folder / TASK_FILES, task, seed)
        for task in GENERAL:
            write_examples(stage.folder / TASK_FILES / f"{task.name}.held_out.jsonl", task.held_out(HELD_OUT))
        for task in (*TASKS, *GENERAL):
            write_text(stage.folder / TASK_FILES / f"{task.name}.yaml", yaml.safe_dump(_harness_task(task), sort_keys=False))
        owned = {task.name: [task.name] for task in TASKS}
        write_text(stage.folder / TASK_FILES / TASK_LIST, yaml.safe_dump({**owned, "general": [task.name for task in GENERAL]}, sort_keys=False))
        recipe = training_recipe(TASKS, seed, Path("..", BASE))
        write_text(stage.folder / TASK_FILES / "train.yml", yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False))


def _harness_task(task: Task) -> dict[str, object]:
    """A task file of lm-evaluation-harness; its data lie beside it, so the harness is to run in that folder."""
    return {
        "task": task.name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": f"{task.name}.held_out.jsonl"}},
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_text": "{{prompt}}",
        "doc_to_target": "{{completion}}",
        "generation_kwargs": {"until": [END], "do_sample": False, "max_gen_toks": ANSWER_TOKENS},
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
        "metadata": {"version": 1},
    }


def write_task(folder: Path, task: Task, seed: int) -> None:
    """Write a task's training and held-out items as JSON lines; files that are there are left alone."""
    train, scored = folder / f"{task.name}.train.jsonl", folder / f"{task.name}.held_out.jsonl"
    if not train.exists():
        write_examples(train, itertools.islice(adapter_examples(task, seed), EXAMPLES))
    if not scored.exists():
        write_examples(scored, task.held_out(HELD_OUT))


def training_recipe(tasks: Sequence[Task], seed: int, base: Path) -> TrainingRecipe:
    """The recipe for some of the zoo's adapters, to lie in the folder of the tasks' files."""
    return TrainingRecipe(
        base=base,
        base_name=BASE_NAME,
        seed=seed,
        lora=LORA,
        training=SCHEDULE,
        adapters={
            task.name: AdapterEntry(
                train=Path(f"{task.name}.train.jsonl"),
                held_out=Path(f"{task.name}.held_out.jsonl"),
                description=task.description,
                category=task.category,
                # adapters that start from the same A matrices would share directions: each has a seed of its own
                seed=len(TASKS) * seed + TASKS.index(task),
            )
            for task in tasks
        },
    )
