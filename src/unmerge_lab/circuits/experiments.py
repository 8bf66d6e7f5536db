"""Toy experiments as folders: train, decompose, intervene; each leaves records that a report reads.

FOLDER/toy.json, models.safetensors          what was trained, which models were discarded
FOLDER/found/N-xR/                           N subnetworks of rank R: factors, and measured.json
FOLDER/interventions.json
"""

from __future__ import annotations

import itertools
import time
from math import inf
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unmerge.checkpoints.write import save_tensors
from unmerge.circuits.decompose import Watch, decompose
from unmerge.circuits.interventions import SHARE, effect, joint, switched_off
from unmerge.circuits.landscape import Landscape
from unmerge.circuits.settings import Settings
from unmerge.circuits.subnetworks import Subnetworks
from unmerge.core.errors import BadInput
from unmerge.core.records import environment, read_json, write_json
from unmerge.core.staging import staged
from unmerge_lab.circuits.apd import RECIPES, apd
from unmerge_lab.circuits.baselines import compare, row_of
from unmerge_lab.circuits.matching import feature_weights, match, mmcs
from unmerge_lab.circuits.measure import measure, over_shares, pictures
from unmerge_lab.circuits.properties import properties
from unmerge_lab.circuits.toys import DECODER, ENCODER, Toy, toy_named
from unmerge_lab.circuits.train_toys import Trained, train

TOY, MODELS, MEASURED = "toy.json", "models.safetensors", "measured.json"
INTERVENTIONS, BASELINES = "interventions.json", "baselines.json"
#: samples that a decomposition sees
SAMPLES = 1000

#: models to keep of each kind, and the (subnetworks, rank) to decompose them with where the user names none
DESIGNS: dict[str, tuple[int, list[tuple[int, int]]]] = {
    "tms": (20, [(5, 1)]),
    "parallel": (3, [(15, 1), (20, 1)]),
    "tmcs": (3, [(10, 1), (15, 1)]),
    "high-rank": (2, [(8, rank) for rank in range(1, 9)] + [(10, 4)]),
    "high-rank-shared": (2, [(8, rank) for rank in range(1, 9)]),
    "square": (2, [(3, 1), (5, 1), (5, 2), (10, 1), (15, 1)]),
    "square-5": (2, [(3, 1), (5, 1), (5, 2), (10, 1), (15, 1)]),
    "square-early": (2, [(3, 1), (5, 1), (5, 2), (10, 1), (15, 1)]),
    "square-5-early": (2, [(3, 1), (5, 1), (5, 2), (10, 1), (15, 1)]),
}
#: models that baselines are compared on
COMPARED = 5
#: how toy models are decomposed: batches in which top-k has more to choose from than in the source's 32, and a start that can
#: fail beside others that do not
TOY_SETTINGS: dict[str, Any] = {"epochs": 100, "batch": 128, "learning_rate": 0.02, "decay": 0.7, "warm": 0.3, "starts": 3}
#: where it is otherwise: TMCS, whose circuits share a decoder, is left in worse minima by large batches
OWN_SETTINGS: dict[str, dict[str, Any]] = {
    "parallel": {"epochs": 200},
    "tmcs": {"epochs": 150, "batch": 32, "learning_rate": 0.01, "decay": 0.8, "warm": 0.2, "starts": 2},
}
#: models that are trained for each that is kept, where some may have to be discarded
_SPARE = 3


def train_toy(kind: str, out: Path, count: int | None = None, seed: int = 0, watch: Watch | None = None) -> dict[str, Any]:
    """Train toy models and keep those that represent every feature.

    Args:
        kind: a name in ``unmerge_lab.circuits.toys.TOYS``.
        out: folder to make.
        count: models to keep; None for that of the design.
        seed: of the first model.
        watch: told (steps done, steps in all).

    Returns:
        The record in ``out/toy.json``.
    """
    toy, wanted = toy_named(kind), count or DESIGNS[kind][0]
    with staged(out, {"toy": kind, "count": wanted, "seed": seed}) as stage:
        started = time.process_time()
        # copies that stand side by side are chosen among spare ones already
        tries = wanted * _SPARE if (toy.least or toy.most < inf) and toy.copies == 1 else wanted
        trained = train(toy, [seed + place for place in range(tries)], watch)
        kept = trained.chosen(wanted)
        if len(kept.models) < wanted:
            raise BadInput(
                expected=f"{wanted} models that represent every feature", found=str(len(kept.models)), where=kind, hint="try another --seed"
            )
        record = {
            "toy": kind,
            "title": toy.title,
            "seeds": kept.seeds,
            "errors": kept.errors.tolist(),
            # of those that were looked at before enough were found
            "discarded": [own for own, good in zip(trained.seeds, trained.represented, strict=True) if not good and own < kept.seeds[-1]],
            "least": toy.least,
            "most": toy.most if toy.most < inf else None,
            "seconds": round(time.process_time() - started, 1),
            "environment": environment().model_dump(),
        }
        tensors = Landscape.of(kept.models).parameters
        with stage.piece(MODELS) as piece:
            save_tensors(piece, tensors)
        write_json(stage.folder / TOY, record)
    return record


def read_toy(folder: Path) -> tuple[str, Trained]:
    """The models of a folder that ``train_toy`` made, and their kind."""
    from safetensors.torch import load_file

    record = read_json(folder / TOY, "a toy experiment; run 'unmerge circuits train' first")
    toy = toy_named(record["toy"])
    tensors = load_file(folder / MODELS)
    models: list[nn.Module] = []
    for run in range(len(record["seeds"])):
        model = toy.empty()
        model.load_state_dict({name: tensor[run] for name, tensor in tensors.items()})
        models.append(model)
    return record["toy"], Trained(toy, models, record["seeds"], torch.tensor(record["errors"]), torch.ones(len(models), dtype=torch.bool))


def decompose_toy(folder: Path, settings: Settings, watch: Watch | None = None) -> dict[str, Any]:
    """Decompose the models of a folder, measure what came out, and keep both; what is there already is read.

    Returns:
        The record: settings, one row a run, seconds.
    """
    kind, trained = read_toy(folder)
    out = folder / "found" / f"{settings.subnetworks}-x{settings.rank}"
    job = settings.model_dump()
    if (out / MEASURED).exists():
        record: dict[str, Any] = read_json(out / MEASURED, "a measured decomposition")
        if record["settings"] == job:
            return record
    with staged(out, job, replace=True) as stage:
        started = time.process_time()
        landscape, x = trained.landscape, trained.inputs(SAMPLES)
        found = decompose(landscape, x, settings, checkpoint=stage.folder / "state.safetensors", watch=watch)
        (stage.folder / "state.safetensors").unlink()
        # of the processor, so that a busy machine does not count
        seconds = round(time.process_time() - started, 1)
        record = {
            "toy": kind,
            "settings": job,
            "pictures": pictures(found),
            "by_share": over_shares(landscape, x, found),
            "rows": measure(trained.toy, kind, trained.seeds, landscape, x, found),
            "seconds": seconds,
            "runs": landscape.runs,
            "environment": environment().model_dump(),
        }
        found.save(stage.folder)
        write_json(stage.folder / MEASURED, record)
    return record


def baselines_toy(folder: Path, watch: Watch | None = None) -> dict[str, Any]:
    """What simpler methods, and APD, find in autoencoders whose circuits are features; ``folder/baselines.json``."""
    kind, trained = read_toy(folder)
    if kind != "tms":
        raise BadInput(expected="tms", found=kind, where=folder, hint="baselines are compared where a circuit is a feature")
    started, landscape, x = time.process_time(), trained.landscape, trained.inputs(SAMPLES)
    rows = []
    for run in range(min(landscape.runs, COMPARED)):
        one = landscape.run(run)
        row = compare(one, x[run], trained.toy.inputs, run)
        weights = feature_weights(one.parameters[ENCODER][0], one.parameters[DECODER][0])
        for name, recipe in RECIPES.items():
            parts = apd(one, x[run], trained.toy.inputs, recipe, seed=run)
            row[name] = row_of(match(parts, weights), mmcs(parts, weights))
        rows.append(row)
        if watch:
            watch(run + 1, min(landscape.runs, COMPARED))
    record = {"toy": kind, "rows": rows, "seconds": round(time.process_time() - started, 1), "environment": environment().model_dump()}
    write_json(folder / BASELINES, record)
    return record


def designs_of(folder: Path) -> list[tuple[int, int]]:
    """The (subnetworks, rank) that the models of a folder are to be decomposed with."""
    return DESIGNS[read_json(folder / TOY, "a toy experiment; run 'unmerge circuits train' first")["toy"]][1]


def settings_for(folder: Path, subnetworks: int, rank: int, *, epochs: int | None = None, **more: Any) -> Settings:
    """Settings for the models of a folder: as long as their kind needs."""
    kind = read_json(folder / TOY, "a toy experiment; run 'unmerge circuits train' first")["toy"]
    length = {} if epochs is None else {"epochs": epochs}
    return Settings(subnetworks=subnetworks, rank=rank, **TOY_SETTINGS | OWN_SETTINGS.get(kind, {}) | length | more)


def intervene_toy(folder: Path, subnetworks: int | None = None, watch: Watch | None = None) -> dict[str, Any]:
    """Move every subnetwork that stands for a circuit, by itself, two at once, in the middle layers alone, and until its output is off.

    Args:
        folder: of a toy experiment that was decomposed.
        subnetworks: of which decomposition (rank 1); None for the smallest design with one for every circuit.
        watch: told (runs done, runs in all).
    """
    kind, trained = read_toy(folder)
    toy = trained.toy
    circuits = toy.inputs // toy.group
    count = subnetworks or min(number for number, _ in DESIGNS[kind][1] if number >= circuits)
    found = Subnetworks.read(folder / "found" / f"{count}-x1")
    measured = read_json(folder / "found" / f"{count}-x1" / MEASURED, "a measured decomposition")
    started, landscape, x = time.process_time(), trained.landscape, trained.inputs(SAMPLES)
    rows = []
    for run, row in enumerate(measured["rows"]):
        one = landscape.run(run)
        moved = _one_run(toy, _standing_for(row), one, found.run(run), x[run])
        rows.append(moved | {"properties": properties(toy, one, trained.seeds[run])})
        if watch:
            watch(run + 1, landscape.runs)
    seconds = round(time.process_time() - started, 1)
    record = {"toy": kind, "subnetworks": count, "share": SHARE, "rows": rows, "seconds": seconds, "environment": environment().model_dump()}
    write_json(folder / INTERVENTIONS, record)
    return record


def _standing_for(row: dict[str, Any]) -> dict[int, int]:
    """The subnetwork that stands for each circuit."""
    if "assigned" in row:
        return {feature: k for feature, k in enumerate(row["assigned"]) if k >= 0}
    if "standing_for" in row:
        return dict(enumerate(row["standing_for"]))
    order = sorted(range(len(row["feature"])), key=lambda k: row["inside"][k])
    return {row["feature"][k]: k for k in order}


def _one_run(toy: Toy, standing: dict[int, int], landscape: Landscape, found: Subnetworks, x: Tensor) -> dict[str, Any]:
    names = list(landscape.parameters)
    middle = [name for name in names if name.split(".")[0] not in (names[0].split(".")[0], names[-1].split(".")[0])]
    result: dict[str, Any] = {"circuits": [], "two": []}
    steps = {}
    for circuit, subnetwork in sorted(standing.items()):
        direction, own = found.decoder.one(subnetwork), _own(toy, circuit, x)
        whole = effect(landscape, direction, x, own)
        steps[circuit] = whole.step
        entry: dict[str, Any] = {"circuit": circuit, "subnetwork": subnetwork, "step": whole.step, "selectivity": whole.selectivity}
        if middle:
            entry["selectivity_middle"] = effect(landscape, direction, x, own, middle).selectivity
        entry["off"] = switched_off(landscape, direction, x, own)
        result["circuits"].append(entry)
    reached = [circuit for circuit in standing if steps[circuit]]
    for first, second in itertools.pairwise(reached):
        moves = {standing[circuit]: steps[circuit] for circuit in (first, second)}
        result["two"].append(joint(landscape, found, x, _own(toy, first, x) | _own(toy, second, x), moves))
    return result


def _own(toy: Toy, circuit: int, x: Tensor) -> Tensor:
    """The outputs of a circuit: those of its inputs, on samples where they are active. In TMCS an input acts on all outputs."""
    own = torch.zeros_like(x, dtype=torch.bool)
    inputs = slice(circuit * toy.group, (circuit + 1) * toy.group)
    if toy.mixes:
        own[x[:, inputs].any(1)] = True
    else:
        own[:, inputs] = x[:, inputs] != 0
    return own
