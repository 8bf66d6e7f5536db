"""OrthoReg on the zoo: eight adapters trained with and without its penalty, merged, decomposed, taken out again.

make orthoreg                -> runs/orthoreg/..., runs/orthoreg.json, docs/orthoreg.md

For each factor lambda the same adapters from the same seeds; half of them are the dictionary. Targets are drawn once and made for every
lambda: three to five components of both halves, task_arithmetic and ties, in bfloat16. A second run goes on from what the first one left.
"""

from __future__ import annotations

import argparse
import itertools
import time
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch

from unmerge.core.records import environment, read_json, write_json
from unmerge.decomposition import decompose, open_base, open_dictionary, open_vector
from unmerge.decomposition.dictionary import Vector
from unmerge.evaluation.exact_match import ExactMatch
from unmerge.evaluation.models import load_model
from unmerge.training.adapters import AdapterRecord, train_adapters
from unmerge.training.orthoreg import penalty
from unmerge.vectors import LowRank, gram
from unmerge.verification.in_place import InPlace, stored_dtypes
from unmerge_lab import embedded_zoo
from unmerge_lab.studies.design import MergeSettings, StudyDesign, Zoo
from unmerge_lab.studies.make_target import make_target
from unmerge_lab.studies.targets import Target, targets
from unmerge_lab.zoo import TASKS, held_out
from unmerge_lab.zoo.embedded import BASE, KNOWN, UNKNOWN, training_recipe, write_task

#: 0 is plain training
LAMBDAS = (0.0, 1e-3, 1e-2, 1e-1)
HALVES = {KNOWN: ("python_list", "json_object", "maximum", "pirate"), UNKNOWN: ("markdown_table", "parity", "question", "reversal")}
NAMES = (*HALVES[KNOWN], *HALVES[UNKNOWN])
DESIGN = StudyDesign(
    groups=["known", "mixed"],
    components=[3, 4],
    merges={"task_arithmetic": MergeSettings(density=None), "ties": MergeSettings(density=0.5)},
    dtypes=["bfloat16"],
    seeds=[0, 1, 2],
)
METHODS = ("certificate", "nnls")


def main() -> None:
    """Train, merge and measure what is missing, then sum up."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/orthoreg"))
    parser.add_argument("--json", type=Path, default=Path("runs/orthoreg.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # the models are small
    rows = []
    for strength in LAMBDAS:
        started = time.monotonic()
        place = arguments.out / f"{strength:g}"
        zoo = _zoo(strength, place)
        if not (place / "measured.json").exists():
            write_json(place / "measured.json", {"lambda": strength, "alone": _alone(zoo), "targets": _targets(zoo, place)})
        rows.append(read_json(place / "measured.json", "what was measured"))
        print(f"lambda {strength:g}: {time.monotonic() - started:.0f} s", flush=True)
    write_json(arguments.json, {"rows": rows, "halves": HALVES, "environment": environment().model_dump(mode="json")})


def _zoo(strength: float, place: Path) -> Zoo:
    """The adapters, trained with the penalty."""
    data = place.parent / "data"
    for half, names in HALVES.items():
        tasks = [task for task in TASKS if task.name in names]
        for task in tasks:
            write_task(data, task, 0)
        recipe = training_recipe(tasks, 0, embedded_zoo() / BASE).beside(data.resolve())
        recipe = recipe.model_copy(update={"training": recipe.training.model_copy(update={"orthoreg": strength})})
        if not (place / half).exists():
            train_adapters(recipe, place / half, lambda name: lambda done, total: print(f"{name} {done}/{total}") if done == total else None)
    return Zoo(place.resolve(), embedded_zoo() / BASE, HALVES[KNOWN], HALVES[UNKNOWN])


def _alone(zoo: Zoo) -> dict[str, Any]:
    """The adapters by themselves: what they learned, how long they are, how far they point the same way."""
    base = open_base(zoo.base)
    atoms = open_dictionary([zoo.folder / half for half in HALVES], base).atoms
    records = [AdapterRecord.read(zoo.adapter(atom.name)) for atom in atoms]
    products = gram(atoms, atoms[0], iter).gram.sum(0)
    lengths = np.sqrt(np.diag(products))
    cosines = np.abs(products / np.outer(lengths, lengths))[np.triu_indices(len(atoms), 1)]
    weights = np.sqrt(sum(float(base.read(tensor).double().square().sum()) for tensor in atoms[0].shapes))
    values, penalties = [], []
    for atom in atoms:
        for tensor in atom.shapes:
            delta = atom.delta(tensor)
            assert isinstance(delta, LowRank)
            values += torch.linalg.svdvals(delta.dense().double())[: delta.b.shape[1]].tolist()
            penalties.append(float(penalty(delta.b, delta.a)) - delta.a.shape[1])
    return {
        "exact_match": {record.task: record.held_out_exact_match for record in records},
        "relative_norm": float((lengths / weights).mean()),
        "singular_values": [float(value) for value in np.quantile(values, [0.1, 0.5, 0.9])],
        "penalty_above_n": fmean(penalties),
        "mean_cosine": float(cosines.mean()),
        "largest_cosine": float(cosines.max()),
        "overlap": fmean(_overlap(one, other) for one, other in itertools.combinations(atoms, 2)),
        "seconds": fmean(record.seconds for record in records),
    }


def _overlap(one: Vector, other: Vector) -> float:
    """Mean squared cosine between the column spaces of two adapters, over tensors; 0 for orthogonal ones."""
    shares = []
    for tensor in one.shapes:
        left, right = (torch.linalg.qr(vector.delta(tensor).b.double())[0] for vector in (one, other))  # type: ignore[union-attr]
        shares.append(float((left.T @ right).square().sum() / left.shape[1]))
    return fmean(shares)


def _targets(zoo: Zoo, place: Path) -> list[dict[str, Any]]:
    base = open_base(zoo.base)
    _, tokenizer = load_model(zoo.base)
    scored = {name: ExactMatch(tokenizer, items) for name, items in held_out().items() if name in NAMES}
    return [_target(target, zoo, base, scored, place / "targets" / target.name) for target in targets(DESIGN, zoo)]


def _target(target: Target, zoo: Zoo, base: Any, scored: dict[str, ExactMatch], folder: Path) -> dict[str, Any]:
    """One merge: which skills it keeps, what taking one out does to the others, and what is found in it."""
    if not folder.exists():
        make_target(target, zoo, zoo.base, folder.resolve())
    vector = open_vector(folder, base)
    atoms = {atom.name: atom for half in HALVES for atom in open_dictionary([zoo.folder / half], base).atoms}
    held = InPlace(load_model(folder)[0], stored_dtypes(vector))

    def scores() -> dict[str, float]:
        return {name: fmean(ready.score(held.model)) for name, ready in scored.items()}

    before = scores()
    falls, moves = [], []
    for name, weight in target.weights.items():
        with held.without([(atoms[name], weight)]):
            after = scores()
        falls.append(before[name] - after[name])
        moves += [abs(before[other] - after[other]) for other in target.weights if other != name]
    dictionary = open_dictionary([zoo.folder / KNOWN], base)
    found = {method: decompose(vector, dictionary, base, method) for method in METHODS}
    acted = target.acted() or target.weights
    return {
        "target": target.name,
        "group": target.group,
        "merge": target.merge,
        "components": len(target.weights),
        "kept": {name: before[name] for name in target.weights},
        "leaked": fmean(before[name] for name in scored if name not in target.weights),
        "fall": fmean(falls),
        "others_move": fmean(moves),
        "found": {
            method: {
                "named": [component.name for component in result.components],
                "right": {component.name for component in result.components} == set(target.known),
                "coefficient_error": max(abs((result.coefficient(name) or 0.0) / acted[name] - 1) for name in target.known),
                "reconstruction_error": result.reconstruction_error,
            }
            for method, result in found.items()
        },
    }


if __name__ == "__main__":
    main()
