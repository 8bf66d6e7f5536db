"""Verification on targets of the zoo whose ingredients are known: every component removed, every control tried.

make verification            -> runs/verification/TARGET/..., runs/verification.json, docs/verification-measured.md

48 targets: known, mixed and unknown components, five merge methods. Each is made, decomposed and verified; a second run goes on from what the
first one left, item by item. Where nothing in the target is in the dictionary, an atom that is not in it is removed all the same.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from unmerge.core.records import environment, write_json
from unmerge.decomposition import decompose, open_base, open_dictionary, open_vector
from unmerge.decomposition.dictionary import Vector
from unmerge.evaluation.exact_match import ExactMatch
from unmerge.evaluation.models import load_model
from unmerge.verification.in_place import InPlace, stored_dtypes
from unmerge.verification.record import Verification
from unmerge.verification.run import Request, verify
from unmerge.verification.tasks import read_tasks
from unmerge_lab.benchmarks.verification_summary import summary
from unmerge_lab.studies.design import MergeSettings, StudyDesign
from unmerge_lab.studies.make_target import base_in, make_target
from unmerge_lab.studies.targets import Target, targets
from unmerge_lab.zoo.embedded import KNOWN, held_out

DENSITY, GROUPS = 0.5, ("known", "mixed", "unknown")
#: every method in both dtypes, and one of each family (linear, trimmed and elected, dropped at random and elected) once more
DESIGNS = (
    StudyDesign(
        merges={
            "task_arithmetic": MergeSettings(density=None),
            "linear": MergeSettings(density=None),
            "ties": MergeSettings(density=DENSITY),
            "dare_linear": MergeSettings(density=DENSITY),
            "dare_ties": MergeSettings(density=DENSITY),
        },
        seeds=[0],
    ),
    StudyDesign(
        merges={
            "task_arithmetic": MergeSettings(density=None),
            "ties": MergeSettings(density=DENSITY),
            "dare_ties": MergeSettings(density=DENSITY),
        },
        seeds=[1],
    ),
)
#: what an atom is removed with from a target that does not hold it
CLAIMED_COEFFICIENT = 0.7
#: repetitions of a condition when its cost is measured
_TIMES = 7


def main() -> None:
    """Verify what is not verified yet, then sum up."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/verification"))
    parser.add_argument("--json", type=Path, default=Path("runs/verification.json"))
    parser.add_argument("--only", help="targets whose name contains this")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # the models are small
    started = time.monotonic()
    drawn = [(target, design) for design in DESIGNS for target in targets(design, design.open_zoo())]
    drawn.sort(key=lambda pair: GROUPS.index(pair[0].group))  # what says most first
    rows, records = [], []
    for place, (target, design) in enumerate(drawn):
        if not arguments.only or arguments.only in target.name:
            with threadpool_limits(1):
                row, record = _verified(target, design, arguments.out)
            rows.append(row)
            records.append(record)
            said = ", ".join(f"{component.removed} {component.verdict}" for component in record.components)
            print(f"{place + 1}/{len(drawn)} {target.name}: {said}, {time.monotonic() - started:.0f} s", flush=True)
    found = {"targets": rows, "summary": summary(rows, records), "cost": _cost(arguments.out), "seconds": round(time.monotonic() - started, 1)}
    write_json(arguments.json, found | {"environment": environment().model_dump(mode="json")})


def _verified(target: Target, design: StudyDesign, out: Path) -> tuple[dict[str, Any], Verification]:
    """One target: what is in it, and its verification."""
    zoo = design.open_zoo()
    place = out / target.name
    base = open_base(base_in(zoo.base, target.dtype, out.resolve()))
    dictionary = open_dictionary([zoo.folder / KNOWN], base)
    if not (place / "target").exists():
        make_target(target, zoo, base.folder, (place / "target").resolve())
    vector = open_vector(place / "target", base)
    decomposition = decompose(vector, dictionary, base)
    chosen = {} if decomposition.components else {_not_inside(target, zoo.known): CLAIMED_COEFFICIENT}
    tasks = read_tasks(Path("zoo"), dictionary)
    record = verify(Request(vector, base, dictionary, decomposition, tasks, chosen), tasks.suite(), place / "verification.items.jsonl")
    write_json(place / "verification.json", record)
    row = {
        "target": target.name,
        "group": target.group,
        "merge": target.merge,
        "weights": target.weights,
        "named": [component.name for component in decomposition.components],
        "claimed": list(chosen),
    }
    return row, record


def _not_inside(target: Target, known: tuple[str, ...]) -> str:
    """An atom of the dictionary that is not in a target, drawn from its seed."""
    names = [name for name in known if name not in target.weights]
    return str(np.random.default_rng(target.seed).permutation(names)[0])


def _cost(out: Path) -> dict[str, float]:
    """Processor time of a condition (subtract, score, put back) over that of bare forward passes of the same batches, by dtype of the target."""
    zoo = DESIGNS[0].open_zoo()
    examples = [example for items in held_out().values() for example in items]
    costs: dict[str, float] = {}
    for dtype in DESIGNS[0].dtypes:
        base = open_base(base_in(zoo.base, dtype, out.resolve()))
        atom = open_dictionary([zoo.folder / KNOWN], base).atoms[0]
        place = next(path for path in sorted(out.iterdir()) if "task_arithmetic" in path.name and dtype in path.name)
        model, tokenizer = load_model(place / "target")
        held, ready = InPlace(model, stored_dtypes(open_vector(place / "target", base))), ExactMatch(tokenizer, examples)

        def condition(held: InPlace = held, atom: Vector = atom, ready: ExactMatch = ready) -> None:
            with held.without([(atom, CLAIMED_COEFFICIENT)]):
                ready.score(held.model)

        def bare(model: Any = model, ready: ExactMatch = ready) -> None:
            with torch.inference_mode():
                for _, tokens, _ in ready.batches:
                    model(input_ids=tokens)

        # by turns, so that a busy machine slows both
        seconds = [(_seconds(condition), _seconds(bare)) for _ in range(_TIMES)]
        costs[dtype] = statistics.median(whole / alone for whole, alone in seconds)
    return costs


def _seconds(work: Callable[[], None]) -> float:
    """Processor time, which others on the machine do not take part in."""
    started = time.process_time()
    work()
    return time.process_time() - started


if __name__ == "__main__":
    main()
