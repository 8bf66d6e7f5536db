"""Training many small adapters quickly: a plain loop over one base in memory, with PEFT's own LoRA, so that an adapter takes seconds.

The trainer of ``unmerge train`` takes as long to start as these take to train. What is learned is the same: the loss on the answers' tokens,
AdamW, a warm-up and a cosine.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import cross_entropy

from unmerge.core.errors import need
from unmerge.core.records import environment, write_json
from unmerge.core.staging import staged
from unmerge.evaluation.batch import NOT_AN_ANSWER, pad
from unmerge.evaluation.models import load_model
from unmerge_lab.studies.families.corpora import PLAIN, examples
from unmerge_lab.studies.families.design import MODULES, Member, Run, Settings, member_name
from unmerge_lab.studies.families.manifest import ADAPTERS, MANIFEST, DictionaryManifest

#: items of a step, items of a training set, share of the steps in which the learning rate rises
BATCH, ITEMS, _WARMUP = 8, 960, 0.1
#: steps that a reported loss is the mean of
_LAST = 10


def train_dictionary(
    name: str, runs: Sequence[Run], base: Path, base_name: str, out: Path, watch: Callable[[str], None] = lambda _: None
) -> DictionaryManifest:
    """Train the runs of a dictionary and write their adapters with a manifest.

    Args:
        name: of the dictionary.
        runs: in an order in which no run comes before the one that it continues.
        base: folder of the base model.
        base_name: what the adapters record as their base.
        out: the folder to make.
        watch: told the name of every finished run.

    Returns:
        The manifest that lies in ``out``.
    """
    model, tokenizer = load_model(base)
    model.requires_grad_(False)
    members: dict[str, Member] = {}
    with staged(out, [name, [repr(run) for run in runs]]) as stage:
        for run in runs:
            parent = members[run.parent] if run.parent else None
            for step, loss in _train(run, model, tokenizer, base_name, stage.folder / ADAPTERS):
                member = _member(name, run, step, loss, parent)
                members[member.name] = member
            watch(run.name)
        manifest = DictionaryManifest(dictionary=name, base=base_name, members=list(members.values()), environment=environment())
        write_json(stage.folder / MANIFEST, manifest)
    return manifest


def _member(dictionary: str, run: Run, step: int, loss: float, parent: Member | None) -> Member:
    return Member(
        name=member_name(run, step),
        dictionary=dictionary,
        family=run.family,
        run=run.name,
        root=parent.root if parent else run.name,
        parent=run.parent,
        step=step + (parent.step if parent else 0),
        author=run.author,
        task=run.task,
        data_seed=run.data_seed,
        seed=run.seed,
        settings=run.settings,
        loss=loss,
    )


def _train(run: Run, model: Any, tokenizer: Any, base_name: str, adapters: Path) -> Iterator[tuple[int, float]]:
    """Train a run on a base that is left as it was, and write what it saves: (step, loss) of each."""
    peft = need("peft", "train")
    torch.manual_seed(run.seed)
    config = peft.LoraConfig(
        r=run.settings.rank,
        lora_alpha=run.settings.alpha * run.settings.rank,
        target_modules=list(MODULES[run.settings.modules]),
        task_type="CAUSAL_LM",
        base_model_name_or_path=base_name,
    )
    adapted = peft.get_peft_model(model, config)
    adapted.peft_config["default"].base_model_name_or_path = base_name
    if run.parent:
        peft.set_peft_model_state_dict(adapted, load_file(adapters / run.parent / "adapter_model.safetensors"))
    parameters = [parameter for parameter in adapted.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=run.settings.learning_rate, weight_decay=0.0)
    losses = []
    last = run.saved[-1]
    for step, (tokens, answers) in enumerate(
        itertools.islice(batches(run.task, run.data_seed, run.seed, tokenizer, run.settings.answer_format), last), 1
    ):
        for group in optimizer.param_groups:
            group["lr"] = run.settings.learning_rate * _schedule(step / last)
        loss = answer_loss(model, tokens, answers)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(float(loss.detach()))
        if step in run.saved:
            _save(adapted, adapters / member_name(run, step), run.settings)
            yield step, sum(losses[-_LAST:]) / len(losses[-_LAST:])
    adapted.unload()


def answer_loss(model: Any, tokens: Tensor, answers: Tensor) -> Tensor:
    """Mean cross-entropy of the answers' tokens.

    Args:
        model: a causal model of transformers.
        tokens: (batch, length), as ``batches`` yields them.
        answers: (batch, length), likewise.
    """
    hidden = model.model(input_ids=tokens).last_hidden_state[:, :-1]
    counted = answers[:, 1:] != NOT_AN_ANSWER
    return cross_entropy(model.lm_head(hidden[counted]), answers[:, 1:][counted])


def _schedule(done: float) -> float:
    """Share of the learning rate: a warm-up, then a cosine to a tenth."""
    return done / _WARMUP if done < _WARMUP else 0.1 + 0.45 * (1 + math.cos(math.pi * (done - _WARMUP) / (1 - _WARMUP)))


def batches(task: str, data_seed: int, seed: int, tokenizer: Any, answer_format: str = PLAIN) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless epochs over a training set: (tokens, answers) of every batch, (BATCH, length) each.

    Args:
        task: of the training set, as in ``corpora.examples``.
        data_seed: of the training set.
        seed: of the order.
        tokenizer: of the model.
        answer_format: of the training set.
    """
    items = list(itertools.islice(examples(task, data_seed, answer_format), ITEMS))
    order = random.Random(seed)
    while True:
        order.shuffle(items)
        for start in range(0, len(items) - BATCH + 1, BATCH):
            yield pad(tokenizer, items[start : start + BATCH])


def _save(adapted: Any, folder: Path, settings: Settings) -> None:
    """An ordinary PEFT folder, in the author's precision."""
    adapted.save_pretrained(folder, save_embedding_layers=False)
    if settings.dtype == "bfloat16":
        file = folder / "adapter_model.safetensors"
        save_file({name: tensor.bfloat16() for name, tensor in load_file(file).items()}, file, {"format": "pt"})
    (folder / "README.md").unlink()  # PEFT's, which names folders of this machine
