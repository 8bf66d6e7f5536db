"""Rebuild the zoo from a seed: train the base, then one adapter a task; keep the adapters that learned their task."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from pydantic import BaseModel

from unmerge.core.errors import BadOutput
from unmerge.core.records import Environment, environment, write_json
from unmerge.core.staging import Stage, staged
from unmerge.evaluation.exact_match import exact_match
from unmerge.evaluation.models import load_model
from unmerge.training.adapters import AdapterRecord, train_adapter
from unmerge.training.finetune import Watch
from unmerge.training.recipe import TrainingRecipe
from unmerge_lab.zoo.base import make_base
from unmerge_lab.zoo.embedded import BASE, BASE_NAME, KNOWN, TASK_FILES, UNKNOWN, held_out, training_recipe, write_task
from unmerge_lab.zoo.tasks import TASKS, Task

ZOO_RECORD = "zoo.json"
#: an adapter is kept when it answers this share of its held-out items
LEARNED = 0.95
#: adapters shipped of each category at most, half of them known; more would not fit the package
OF_A_CATEGORY = 4

_CARD = """---
license: apache-2.0
base_model: {base}
library_name: peft
tags: [unmerge-zoo, {category}]
---
# {task}

{description}. A LoRA of unmerge's zoo, trained on generated data; made by `make zoo`.
"""


class ZooRecord(BaseModel):
    """A zoo in numbers: exact match of the base on every task prompt and general task, and of each adapter on its own."""

    seed: int
    base: dict[str, float]
    adapters: dict[str, float]
    known: list[str]
    unknown: list[str]
    environment: Environment


def build_zoo(out: Path, seed: int, watch: Callable[[str], Watch]) -> ZooRecord:
    """Build a zoo; an interrupted run keeps what it has trained.

    Args:
        out: folder to make, or a zoo to replace.
        seed: of data, base and adapters.
        watch: given what is trained, returns what is told of its steps.

    Returns:
        The record that lies in ``out/zoo.json``.
    """
    if out.exists() and not (out / ZOO_RECORD).exists() and (not out.is_dir() or any(out.iterdir())):
        raise BadOutput(where=out, found="something that is no zoo", hint="choose another --out")
    with staged(out, {"zoo": seed}, replace=True) as stage:
        if not stage.has(BASE):
            with stage.piece(BASE) as piece:
                _make_base(piece, seed, watch("the base"))
        for task in TASKS:
            write_task(stage.folder / TASK_FILES, task, seed)
        recipe = training_recipe(TASKS, seed, (stage.folder / BASE).resolve()).beside(stage.folder / TASK_FILES)
        base, tokenizer = load_model(stage.folder / BASE, BASE_NAME)
        base_scores = {name: _share(exact_match(base, tokenizer, examples)) for name, examples in held_out().items()}
        adapter_scores = {task.name: _adapter(stage, recipe, task, watch) for task in TASKS}
        known, unknown = _halves(adapter_scores)
        record = ZooRecord(seed=seed, base=base_scores, adapters=adapter_scores, known=known, unknown=unknown, environment=environment())
        for group, names in ((KNOWN, known), (UNKNOWN, unknown)):
            with stage.piece(group) as piece:
                for name in names:
                    shutil.copytree(stage.folder / "adapters" / name, piece / name)
        write_json(stage.folder / ZOO_RECORD, record)
        shutil.rmtree(stage.folder / "adapters")
        shutil.rmtree(stage.folder / TASK_FILES)  # made again from the seed in a second
    return record


def _make_base(folder: Path, seed: int, watch: Watch) -> None:
    model, tokenizer = make_base(seed, watch=watch)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    card = "---\nlicense: apache-2.0\n---\n# unmerge's zoo: the base\n\nA small Qwen2 trained from nothing on generated text; made by `make zoo`.\n"
    (folder / "README.md").write_text(card, encoding="utf-8")


def _adapter(stage: Stage, recipe: TrainingRecipe, task: Task, watch: Callable[[str], Watch]) -> float:
    name = f"adapters/{task.name}"
    if not stage.has(name):
        with stage.piece(name) as piece:
            train_adapter(recipe, task.name, piece, watch(task.name))
            card = _CARD.format(base=BASE_NAME, task=task.name, category=task.category, description=task.description)
            (piece / "README.md").write_text(card, encoding="utf-8")
    return AdapterRecord.read(stage.folder / name).held_out_exact_match or 0.0


def _halves(scores: dict[str, float]) -> tuple[list[str], list[str]]:
    """Known and unknown adapters: the best of every category among those that learned their task, by turns."""
    known, unknown = [], []
    for category in dict.fromkeys(task.category for task in TASKS):
        learned = [task.name for task in TASKS if task.category == category and scores[task.name] >= LEARNED]
        best = sorted(learned, key=lambda name: -scores[name])[:OF_A_CATEGORY]
        # by turns in the order of the task list, as many in one half as in the other
        chosen = [name for name in learned if name in best][: len(best) // 2 * 2]
        known += chosen[0::2]
        unknown += chosen[1::2]
    return known, unknown


def _share(right: list[bool]) -> float:
    return sum(right) / len(right)
