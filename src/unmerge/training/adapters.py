"""Phase 1: train the adapters of a recipe and write them as ordinary PEFT folders, each with a record.

A recipe without a LoRA trains all weights: what it makes are checkpoints, in the base's own precision.
"""

from __future__ import annotations

import math
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from unmerge.checkpoints import Checkpoint
from unmerge.checkpoints.hub import located, origin, pinned
from unmerge.core.errors import need
from unmerge.core.examples import Example
from unmerge.core.records import Environment, environment, fingerprint, read_json, write_json, write_text
from unmerge.core.staging import staged
from unmerge.evaluation.checks import Check, Exact, Judged, LmEval
from unmerge.evaluation.exact_match import exact_match
from unmerge.evaluation.generated import Generated
from unmerge.evaluation.models import load_model
from unmerge.evaluation.task_files import RECORD
from unmerge.training.chat import wrapper
from unmerge.training.data import Prepared
from unmerge.training.finetune import Lora, Schedule, Watch, finetune
from unmerge.training.recipe import AdapterEntry, TrainingRecipe
from unmerge.training.tasks import write_tasks

_CARD = """---
base_model: {base}
library_name: peft
---
# {name}

{description}

Made by `unmerge train`; `unmerge.json` says how.
"""
#: of the adapter that is being trained, while it is
_STATE = ".state"


class AdapterRecord(BaseModel):
    """How an adapter was made and how it does; ``lora`` is None for a full fine-tune. The ``task`` is what ``verify`` measures it on.

    Attributes:
        base: its name, or its folder.
        base_hub: the commit that it is on the hub (``owner/name@commit``).
        data: the SHA-256 of every file, the commit of every data set, by name.
        held_out_exact_match: the share of held-out items that are answered exactly; None where they are checked otherwise, or there are none.
        held_out_score: the mean of the check's scores, where there is another check than exact match.
        scored_by: that check.
    """

    task: str
    category: str
    description: str
    base: str
    base_hub: str | None = None
    seed: int
    lora: Lora | None
    training: Schedule
    examples: int
    data: dict[str, str]
    held_out_exact_match: float | None
    held_out_score: float | None = None
    scored_by: str | None = None
    held_out_items: int
    seconds: float
    environment: Environment

    @staticmethod
    def read(folder: Path) -> AdapterRecord:
        """The record in an adapter's folder."""
        return AdapterRecord.model_validate(read_json(folder / RECORD, "an adapter's record"))


def train_adapters(recipe: TrainingRecipe, out: Path, watch: Callable[[str], Watch], tasks: Path | None = None) -> dict[str, AdapterRecord]:
    """Train every adapter of a recipe; finished ones are kept when the run is interrupted.

    Args:
        recipe: what to train, paths absolute.
        out: folder to make, with one PEFT adapter a name, or one checkpoint.
        watch: given an adapter's name, returns what is told of its steps.
        tasks: folder to write the held-out items to, for ``verify``.

    Returns:
        The records, by name.
    """
    base = Checkpoint.open(located(recipe.base))
    wrap = wrapper(recipe)
    # every file is read before the first hour is spent
    data = {name: entry.prepared(wrap) for name, entry in recipe.adapters.items()}
    if tasks:
        write_tasks(tasks, recipe, {name: list(found.held_out) for name, found in data.items()})
    hashes = {name: [found.sources, _contents(found)] for name, found in data.items()}
    job = {"recipe": recipe.model_dump(mode="json", exclude={"base", "adapters"}), "data": hashes, "base": base.source().sha256}
    with staged(out, job) as stage:
        state = stage.folder / _STATE
        for name in recipe.adapters:
            if not stage.has(name):
                with stage.piece(name) as folder:
                    train_adapter(recipe, name, folder, watch(name), state, data[name])
                shutil.rmtree(state, ignore_errors=True)
    return {name: AdapterRecord.read(out / name) for name in recipe.adapters}


def train_adapter(
    recipe: TrainingRecipe, name: str, folder: Path, watch: Watch | None = None, state: Path | None = None, data: Prepared | None = None
) -> None:
    """Train one adapter of a recipe, score it on its held-out items, and write both.

    Args:
        recipe: with the adapter.
        name: which one.
        folder: to make.
        watch: told of the steps.
        state: see ``finetune``.
        data: its examples, where they are read already.
    """
    entry = recipe.adapters[name]
    seed = recipe.seed if entry.seed is None else entry.seed
    data = data or entry.prepared(wrapper(recipe))
    need("trl", "train")  # importing it takes seconds that are not training
    started = time.monotonic()
    base = located(recipe.base)
    found = origin(base)
    base_name = recipe.base_name or (found.repository if found else str(recipe.base))
    model, tokenizer = load_model(base, weights=recipe.training.weights)
    model = finetune(model, tokenizer, data.train, recipe.training, seed=seed, lora=recipe.lora, watch=watch, state=state)
    seconds = time.monotonic() - started
    _save(model, tokenizer, recipe, name, folder, base_name)
    check = _check(entry)
    right = _scores(model, tokenizer, name, data.held_out, check)
    mean = sum(right) / len(right) if right else None
    record = AdapterRecord(
        task=entry.metric.task if isinstance(entry.metric, LmEval) else name,
        category=entry.category,
        description=entry.description,
        base=base_name,
        base_hub=pinned(base),
        seed=seed,
        lora=recipe.lora,
        training=recipe.training,
        examples=len(data.train),
        data=dict(data.sources),
        held_out_exact_match=mean if check is None else None,
        held_out_score=mean if check is not None else None,
        scored_by=check.says if check is not None and right else None,
        held_out_items=len(right),
        seconds=round(seconds, 1),
        environment=environment(),
    )
    write_json(folder / RECORD, record)


def _contents(data: Prepared) -> str:
    return fingerprint([[example.prompt, example.completion] for example in (*data.train, *data.held_out)])


def _check(entry: AdapterEntry) -> Check | None:
    """How its answers are checked, where it is not by exact match of whole completions."""
    return entry.metric if isinstance(entry.metric, Check) and entry.metric != Exact(tokens=entry.metric.tokens) else None


def _scores(model: Any, tokenizer: Any, name: str, examples: Sequence[Example], check: Check | None) -> list[float]:
    """Of every held-out item; none for a judge, whose money is for ``verify``."""
    if not examples or isinstance(check, Judged):
        return []
    if check is None:
        return [float(right) for right in exact_match(model, tokenizer, examples)]
    with tempfile.TemporaryDirectory() as scratch:
        return Generated({name: (examples, check)}, Path(scratch) / "none").score(model, tokenizer, [name])[name]


def _save(model: Any, tokenizer: Any, recipe: TrainingRecipe, name: str, folder: Path, base_name: str) -> None:
    if recipe.lora:
        for config in model.peft_config.values():
            config.base_model_name_or_path = base_name  # not before: while it is trained, PEFT looks at the base that it names
        # the base is not changed, and its recorded name need not be a folder here: PEFT is not to look for it on the hub
        model.save_pretrained(folder, save_embedding_layers=False)
        # in place of PEFT's, which names folders of this machine
        write_text(folder / "README.md", _CARD.format(base=base_name, name=name, description=recipe.adapters[name].description))
        return
    base = Checkpoint.open(located(recipe.base))
    largest = max(base.shapes, key=lambda tensor: math.prod(base.shapes[tensor]))
    model.to(base.read(largest).dtype).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    model.float()  # what was saved is scored: the rounded weights
