"""Is a micro-task's skill found in the base without its adapter? The whole experiment, as a folder.

1. Decompose a block with random references (what L3D does) and with contrastive pairs.
2. Orient and scale each subnetwork so that moving along it brings task prompts closest to what the commands answer.
3. Name it: the task whose prompts it serves most, the tokens it moves.
4. Write it as a PEFT adapter. Add it to the base: is its skill unlocked, and only that? Subtract it, through ``ablate``, from the
   zoo's adapter of that skill: is the skill gone? ``verify`` judges it, and a target made of subnetworks, as it judges any other.
5. Containment of its directions in every adapter of the zoo, the adapter of its own skill against the others.
6. Fine-tune inside the few subnetworks that serve a task most: their steps are all that is trained.
"""

from __future__ import annotations

import itertools
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call

from unmerge.checkpoints import Adapter
from unmerge.checkpoints.write_adapter import write_adapter
from unmerge.circuits.decompose import Watch, decompose
from unmerge.circuits.settings import Settings
from unmerge.circuits.subnetworks import Subnetworks
from unmerge.core.records import environment, write_json
from unmerge.core.staging import staged
from unmerge.evaluation.batch import NOT_AN_ANSWER, pad
from unmerge.vectors import LowRank
from unmerge.verification import ablate
from unmerge_lab import embedded_zoo
from unmerge_lab.circuits.language import Language, Prompts, low_rank
from unmerge_lab.circuits.language_verify import verify_subnetworks, write_sum
from unmerge_lab.zoo import GENERAL, TASKS
from unmerge_lab.zoo.embedded import BASE_NAME

RECORD = "language.json"
#: prompts of every task; held-out items of every task
PROMPTS, ITEMS = 16, 32
#: steps that are tried along a subnetwork of unit norm
STEPS = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0)
#: a shorter step is taken when it brings the divergence this close (in nats) to the least that is reached
CLOSE = 0.1
#: fine-tuning inside subnetworks: how many, optimiser steps, examples, learning rate
INSIDE, TUNING_STEPS, TUNING_EXAMPLES, TUNING_RATE = 4, 40, 32, 0.1
#: a skill is unlocked at this score, gone at this one; a subnetwork unlocks it alone where no other task rises by more than this; so many of
#: these are planted
UNLOCKED, GONE, ALONE, PLANTED = 0.8, 0.1, 0.1, 3
#: tasks that are fine-tuned inside subnetworks
TUNED = ("pirate", "python_list", "opposite")

Bars = Callable[[str], Watch]


def study_language(out: Path, bars: Bars, *, block: int = 3, subnetworks: int = 40, rank: int = 4, epochs: int = 15, seed: int = 0) -> dict[str, Any]:
    """Run the experiment.

    Args:
        out: folder to make; ``adapters-random`` and ``adapters-contrastive`` in it are dictionaries.
        bars: given a title, returns what is told of its steps.
        block: of the base.
        subnetworks: n_v.
        rank: of a subnetwork in every matrix.
        epochs: passes over the prompts.
        seed: of prompts and decomposition.

    Returns:
        The record in ``out/language.json``.
    """
    settings = Settings(subnetworks=subnetworks, rank=rank, epochs=epochs, seed=seed, chunk=64, share=2 / subnetworks)
    begun = time.process_time()
    with staged(out, {"language": settings.model_dump(), "block": block}) as stage:
        language = Language.open(block)
        prompts = Prompts.of_tasks(TASKS, language.tokenizer, PROMPTS, seed)
        held_out = {task.name: task.held_out(ITEMS) for task in (*TASKS, *GENERAL)}
        before = language.scores({}, held_out)
        record: dict[str, Any] = {"block": block, "settings": settings.model_dump(), "base": before, "environment": environment().model_dump()}
        goals = language.landscape.outputs(prompts.commanded[None])
        for kind, pairs in (("contrastive", goals), ("random", None)):
            started = time.monotonic()
            state = stage.folder / f"{kind}.safetensors"
            found = decompose(language.landscape, prompts.asked[None], settings, pairs=pairs, checkpoint=state, watch=bars(f"{kind} references"))
            seconds = round(time.monotonic() - started, 1)
            every = found.coefficients(language.landscape, prompts.asked[None], goals)[0]
            described = [_describe(language, prompts, found, goals, every, place) for place in range(subnetworks)]
            record[kind] = {
                "loss": float(found.losses[-1, 0]),
                "seconds": seconds,
                "subnetworks": described,
                "tasks": _tasks(language, prompts, found, described, held_out, before, stage.folder / f"adapters-{kind}", bars(f"{kind}: skills")),
            }
            if kind == "contrastive":
                record["verified"] = _verified(record[kind]["tasks"], stage.folder / f"adapters-{kind}", seed, bars("verify"))
            record[kind]["tuned"] = [_tune(language, prompts, found, task, held_out, seed) for task in TUNED]
            state.unlink(missing_ok=True)
        record["seconds"] = round(time.process_time() - begun, 1)
        write_json(stage.folder / RECORD, record)
    return record


def _describe(language: Language, prompts: Prompts, found: Subnetworks, goals: Tensor, every: Tensor, place: int) -> dict[str, Any]:
    """Its sign and step, the tasks that it serves, the tokens that it moves."""
    landscape, x = language.landscape, prompts.asked[None]
    direction = found.decoder.one(place)
    coefficients = every[:, place]
    by_task = torch.stack([coefficients[prompts.of == task].abs().mean() for task in range(len(prompts.tasks))])
    task = int(by_task.argmax())
    own = prompts.of == task
    # the gradient points to where the divergence grows: the circuit acts against it
    sign = -1.0 if float(coefficients[own].mean()) > 0 else 1.0
    losses = []
    for step in STEPS:
        outputs = landscape.outputs(x[:, own], landscape.moved(direction, sign * step))[0]
        losses.append(float(torch.stack([landscape.divergence(one, goal) for one, goal in zip(outputs, goals[0, own], strict=True)]).mean()))
    # the further a subnetwork is moved, the more of other tasks it moves with it
    step = sign * next(step for step, loss in zip(STEPS, losses, strict=True) if loss <= min(losses) + CLOSE)
    change = torch.log_softmax(landscape.outputs(x[:, own], landscape.moved(direction, step))[0], -1) - torch.log_softmax(
        landscape.outputs(x[:, own])[0], -1
    )
    likely = torch.softmax(landscape.outputs(x[:, own])[0], -1).mean(0) + torch.softmax(goals[0, own], -1).mean(0)
    moved = (change.mean(0) * likely).sort()
    return {
        "task": prompts.tasks[task].name,
        "share": float(by_task[task] / by_task.sum()),
        "by_task": by_task.tolist(),
        "step": step,
        "divergence": min(losses),
        "raises": [language.tokenizer.decode([int(token)]) for token in moved.indices.flip(0)[:3]],
        "lowers": [language.tokenizer.decode([int(token)]) for token in moved.indices[:3]],
    }


def _tasks(
    language: Language,
    prompts: Prompts,
    found: Subnetworks,
    described: list[dict[str, Any]],
    held_out: dict[str, list[Any]],
    before: dict[str, float],
    folder: Path,
    watch: Watch,
) -> list[dict[str, Any]]:
    """Every task's own subnetwork as an adapter, put to the test."""
    rows = []
    folder.mkdir(exist_ok=True)
    for place, task in enumerate(prompts.tasks):
        # of those that serve it at all, the one that serves it most relative to the others
        subnetwork = max(range(len(described)), key=lambda k: described[k]["by_task"][place] ** 2 / sum(described[k]["by_task"]))
        step = described[subnetwork]["step"]
        parts = low_rank(found, subnetwork, step)
        shutil.rmtree(folder / task.name, ignore_errors=True)
        write_adapter(folder / task.name, {language.tensor(name): part for name, part in parts.items()}, BASE_NAME)
        after = language.scores({name: part.dense() for name, part in parts.items()}, held_out)
        others = {name: after[name] - before[name] for name in after if name != task.name}
        rise, fall = max(others, key=others.__getitem__), min(others, key=others.__getitem__)
        row = {
            "task": task.name,
            "subnetwork": subnetwork,
            "named": described[subnetwork]["task"],
            "step": step,
            "before": before[task.name],
            "after": after[task.name],
            "largest_rise": [rise, others[rise]],
            "largest_fall": [fall, others[fall]],
        }
        rows.append(row | _beside_adapters(language, parts, folder / task.name, task.name, held_out[task.name]))
        watch(place + 1, len(prompts.tasks))
    return rows


def _verified(rows: list[dict[str, Any]], folder: Path, seed: int, watch: Watch) -> list[dict[str, Any]]:
    """A sum of subnetworks that each unlock their skill alone; and every adapter of the zoo whose skill ``ablate`` took away with a subnetwork."""
    # tasks that share a subnetwork would be one atom twice: the one that it unlocks most stands for it
    best = {row["subnetwork"]: row for row in sorted(rows, key=lambda row: float(row["after"]))}
    atoms = [folder / row["task"] for row in best.values()]
    alone = [row for row in best.values() if row["after"] >= UNLOCKED and row["largest_rise"][1] <= ALONE]
    planted = sorted(alone, key=lambda row: float(row["largest_rise"][1]))[:PLANTED]
    gone = [row["task"] for row in best.values() if row.get("adapter", 0.0) >= UNLOCKED and row["adapter_without"] <= GONE]
    made = []
    if planted:
        write_sum(folder / ".planted", [folder / row["task"] for row in planted])
        made.append(verify_subnetworks(folder / ".planted", atoms, {}, seed) | {"target": " + ".join(row["task"] for row in planted)})
        shutil.rmtree(folder / ".planted")
    for place, task in enumerate(gone):
        made.append(verify_subnetworks(zoo_adapters()[task], atoms, {task: 1.0}, seed) | {"target": f"the adapter {task}"})
        watch(place + 1, len(gone))
    return made


def zoo_adapters() -> dict[str, Path]:
    """The zoo's adapters by name."""
    return {path.name: path for group in ("known", "unknown") for path in sorted((embedded_zoo() / group).iterdir())}


def _beside_adapters(language: Language, parts: dict[str, LowRank], folder: Path, task: str, items: list[Any]) -> dict[str, Any]:
    """Containment in the zoo's adapters; and the skill that is left of the task's own adapter without the subnetwork."""
    adapters = zoo_adapters()
    containments = {}
    for name, path in adapters.items():
        adapter = Adapter.open(path)
        containments[name] = containment(parts, {parameter: adapter.delta(language.tensor(parameter)) for parameter in parts})
    if task not in adapters:
        return {"containment": None, "others": max(containments.values()), "rank_among_adapters": None}
    own = containments.pop(task)
    result: dict[str, Any] = {"containment": own, "others": sum(containments.values()) / len(containments)}
    result["rank_among_adapters"] = 1 + sum(value > own for value in containments.values())
    result["adapter"] = _score(language, adapters[task], items)
    for key, coefficient in (("adapter_without", 1.0), ("adapter_without_twice", 2.0)):
        without = folder.with_name(f".{task}-without")
        shutil.rmtree(without, ignore_errors=True)
        ablate(Adapter.open(adapters[task]), [(Adapter.open(folder), coefficient)], without)
        result[key] = _score(language, without, items)
        shutil.rmtree(without)
    return result


def containment(parts: dict[str, LowRank], adapter: dict[str, Any]) -> float:
    """How much of a subnetwork lies in the adapter's column and row spaces: sum s^2 |U^T u|^2 |V^T v|^2 / sum s^2 over all matrices."""
    inside = total = 0.0
    for name, part in parts.items():
        left, values, right = part.svd()
        u, s, v = adapter[name].svd()
        rank = int((s > 1e-6 * s[0]).sum())
        held = (u[:, :rank].T @ left).square().sum(0) * (v[:rank] @ right.T).square().sum(0)
        inside += float((values.square() * held).sum())
        total += float(values.square().sum())
    return inside / total


def _score(language: Language, adapter: Path, items: list[Any]) -> float:
    """Exact match of the base with a LoRA that is added to its weights."""
    opened = Adapter.open(adapter)
    moves = {f"model.{tensor}": opened.delta(tensor).dense().float() for tensor in opened.shapes}
    return language.scores(moves, {"task": items})["task"]


def _tune(language: Language, prompts: Prompts, found: Subnetworks, task: str, held_out: dict[str, list[Any]], seed: int) -> dict[str, Any]:
    """Train nothing but the steps along the subnetworks that serve a task most."""
    place = [each.name for each in prompts.tasks].index(task)
    own = prompts.of == place
    goals = language.landscape.outputs(prompts.commanded[None, own])
    serving = found.coefficients(language.landscape, prompts.asked[None, own], goals)[0].abs().mean(0).topk(INSIDE).indices.tolist()
    directions = [found.decoder.one(subnetwork) for subnetwork in serving]
    drawn = prompts.tasks[place].pairs(random.Random(f"{seed}/tune"), held_out=False)
    examples = [prompts.tasks[place].asked(pair) for pair in itertools.islice(drawn, TUNING_EXAMPLES)]
    tokens, answers = pad(language.tokenizer, examples)
    steps = torch.zeros(INSIDE, requires_grad=True)
    optimizer = torch.optim.Adam([steps], lr=TUNING_RATE)
    base = dict(language.model.named_parameters())
    losses = []
    for _ in range(TUNING_STEPS):
        moved = {
            language.tensor(name): base[language.tensor(name)] + sum(step * each[name][0] for step, each in zip(steps, directions, strict=True))
            for name in directions[0]
        }
        logits = functional_call(language.model, moved, kwargs={"input_ids": tokens}).logits[:, :-1]
        counted = answers[:, 1:] != NOT_AN_ANSWER
        loss = torch.nn.functional.cross_entropy(logits[counted], answers[:, 1:][counted])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(float(loss.detach()))
    moves = {
        name: sum((float(step) * each[name][0] for step, each in zip(steps, directions, strict=True)), torch.zeros(())) for name in directions[0]
    }
    after = language.scores(moves, held_out)
    others = {name: score for name, score in after.items() if name != task}
    return {
        "task": task,
        "subnetworks": serving,
        "steps": steps.tolist(),
        "loss": [losses[0], losses[-1]],
        "after": after[task],
        "others": max(others[each.name] for each in TASKS if each.name != task),
        "general": min(others[each.name] for each in GENERAL),
    }
