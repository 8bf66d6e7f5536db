"""The certificate on targets whose ingredients are known, one row for each claim.

    python -m unmerge_lab.benchmarks.certificate [--only ROW ...] [--share SHARE] [--json FILE]

calibration   targets of unknown adapters of the zoo alone: how often the test rejects at .05 and .01
large         synthetic modules at least 1024 wide, atoms at cosine .15, bfloat16 that leaves 50% to 92% of the weights unchanged
duplicates    near duplicates of a zoo adapter in the dictionary: another seed, continued training, cosine .5 to .99
many          a synthetic dictionary of 200 atoms, five of them in the target
limits        zoo adapters planted at the detection limit that was stated for them, and at twice of it

Targets of the zoo are made by mergekit and go through ``decompose``; synthetic ones, in memory, through ``certify``. ``--share .1``
makes a tenth of the targets. A row that is run again takes its old place in the file; the others stay.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats

from unmerge.certificate.certify import certify
from unmerge.certificate.rounding import Grid
from unmerge.core.records import environment, read_json, write_json
from unmerge.decomposition import Decomposition
from unmerge.decomposition.result import Absent, Component
from unmerge.vectors import gram
from unmerge_lab.benchmarks.synthetic import Synthetic, acted
from unmerge_lab.benchmarks.zoo_targets import Zoo, cosine_between

Row = dict[str, Any]

METHODS, SPARSE = ("task_arithmetic", "linear", "ties", "dare_linear", "dare_ties"), ("ties", "dare_linear", "dare_ties")
DTYPES = ("bfloat16", "float32")
LEVELS = (0.05, 0.01)
#: the interval around a level that is asked of the rejections
CONFIDENCE = 0.95

#: mappings of more entries than this are printed as a range; the file has them all
MANY = 9
#: known adapters that get a near duplicate, and how alike the synthetic ones are
VARIED, COSINES = ("pirate", "reversal", "parity"), (0.5, 0.7, 0.9, 0.95, 0.99)


def main() -> None:
    """Run the rows, print each, and keep them in a file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=ROWS, default=list(ROWS), metavar="ROW", help=f"some of {', '.join(ROWS)}")
    parser.add_argument("--share", type=float, default=1.0, help="of the targets that are made")
    parser.add_argument("--json", type=Path, default=Path("runs/certificate.json"), help="the file that keeps the figures")
    arguments = parser.parse_args()
    rows = read_json(arguments.json, "an earlier record")["rows"] if arguments.json.exists() else {}
    with tempfile.TemporaryDirectory() as scratch:
        zoo = Zoo(Path(scratch))
        for name in arguments.only:
            started = time.monotonic()
            figures = ROWS[name](zoo, arguments.share)
            rows[name] = {"share": arguments.share, "seconds": round(time.monotonic() - started, 1), **figures}
            print(name)
            _show(rows[name])
            write_json(arguments.json, {"rows": {row: rows[row] for row in ROWS if row in rows}, "environment": environment().model_dump()})


def calibration(zoo: Zoo, share: float) -> Row:
    """In every target H0 holds for every atom of the dictionary."""
    rng = np.random.default_rng(0)
    found: list[tuple[str, dict[str, float]]] = []
    named: Counter[str] = Counter()
    for place in range(_count(300, share)):
        method, dtype = METHODS[place % 5], DTYPES[place // 5 % 2]
        weights = _weights(_some(zoo.unknown, int(rng.integers(2, 6)), rng), rng)
        density = round(rng.uniform(0.2, 0.8), 2) if method in SPARSE else None
        result = zoo.decomposed(zoo.merged(weights, method, dtype, density, seed=place), dtype)
        named[f"{method}, {dtype}"] += len(result.components)
        entries: list[Component | Absent] = [*result.components, *result.absent]
        found.append((f"{method}, {dtype}", {entry.name: entry.p_value for entry in entries if entry.p_value is not None}))
    row: Row = {"targets": len(found), "components named": sum(named.values())}
    for level in LEVELS:
        low, high = (bound / len(found) for bound in stats.binom.interval(CONFIDENCE, len(found), level))
        by_atom = {name: float(np.mean([p_values[name] <= level for _, p_values in found])) for name in sorted(found[0][1])}
        by_merge: defaultdict[str, list[bool]] = defaultdict(list)
        for merge, p_values in found:
            by_merge[merge] += [p_value <= level for p_value in p_values.values()]
        row[f"rejected at {level}"] = {
            "all atoms": float(np.mean(list(by_atom.values()))),
            "interval for one atom": [low, high],
            "atoms above it": {name: rate for name, rate in by_atom.items() if rate > high},
            "by atom": by_atom,
            "by merge": {merge: float(np.mean(rejected)) for merge, rejected in sorted(by_merge.items())},
        }
    return row


def large(_: Zoo, share: float) -> Row:
    """Half of the components unknown, for presence; none, for the coefficients."""
    kinds = {"q_proj": (1024, 1024), "up_proj": (1536, 1024), "down_proj": (1024, 1536)}
    shapes = {f"layers.{layer}.{kind}.weight": shape for layer in range(2) for kind, shape in kinds.items()}
    row: Row = {}
    for unchanged, unknown in ((0.5, (2, 3)), (0.75, (2, 3)), (0.5, ()), (0.75, ()), (0.92, ())):
        outcomes = []
        for seed in range(_count(3, share)):
            weights = dict(enumerate(_amounts(4, np.random.default_rng(seed))))
            outcomes.append(_certified(Synthetic.make(shapes, 16, 16, 0.15, seed).leaving(unchanged, weights), weights, unknown))
        row[f"{unchanged:.0%} unchanged, {len(unknown)} of 4 unknown"] = _summary(outcomes)
    return row


def many(_: Zoo, share: float) -> Row:
    """Five atoms of 200 in the target, alone or with two unknown ones."""
    shapes = {f"layers.{layer}.{kind}.weight": (512, 512) for layer in range(2) for kind in ("q_proj", "o_proj")}
    row: Row = {}
    for unknown in ((), (200, 201)):
        outcomes = []
        for seed in range(_count(3, share)):
            rng = np.random.default_rng(seed)
            inside = [*_some(range(200), 5, rng), *unknown]
            weights = dict(zip(inside, _amounts(len(inside), rng), strict=True))
            outcomes.append(_certified(Synthetic.make(shapes, 202, 8, 0.1, seed).leaving(0.5, weights), weights, unknown))
        row[f"{len(unknown)} unknown beside them"] = _summary(outcomes)
    return row


def duplicates(zoo: Zoo, share: float) -> Row:
    """The original or its variant in the target, beside another known adapter and an unknown one; both in the dictionary."""
    rng = np.random.default_rng(0)
    others = [folder for folder in zoo.known if folder.name not in VARIED]
    row: Row = {}
    for kind, made in zoo.variants(VARIED[: _count(len(VARIED), share)], COSINES).items():
        verdicts: Counter[str] = Counter()
        for (original, variant), place, (method, dtype, density) in itertools.product(
            made, (0, 1), (("task_arithmetic", "bfloat16", None), ("ties", "float32", 0.3), ("dare_linear", "bfloat16", 0.3))
        ):
            truth = (original, variant)[place]
            (beside,) = _some(others, 1, rng)
            weights = _weights([truth, beside, *_some(zoo.unknown, 1, rng)], rng)
            result = zoo.decomposed(zoo.merged(weights, method, dtype, density, seed=int(rng.integers(1000))), dtype, variant.parent)
            verdicts[_verdict(result, truth.name, {original.name, variant.name})] += 1
            elsewhere = {component.name for component in result.components} - {original.name, variant.name}
            verdicts["wrong elsewhere"] += elsewhere != {beside.name}
        row[kind] = {"cosine": float(np.mean([cosine_between(*pair) for pair in made])), **verdicts}
    return row


def limits(zoo: Zoo, share: float) -> Row:
    """A target without an atom states its limit; the same target with the atom at that weight must show it."""
    rng = np.random.default_rng(0)
    seen: dict[str, list[bool]] = defaultdict(list)
    stated, without = [], 0
    for place in range(_count(12, share)):
        method, density = (("task_arithmetic", None), ("dare_linear", 0.3))[place % 2]
        weights = _weights([*_some(zoo.known, 1, rng), *_some(zoo.unknown, 2, rng)], rng)
        result = zoo.decomposed(zoo.merged(weights, method, "bfloat16", density, seed=place), "bfloat16")
        for absent in _some([absent for absent in result.absent if absent.name not in {folder.name for folder in weights}], 2, rng):
            if absent.detection_limit is None:
                without += 1
                continue
            stated.append(absent.detection_limit)
            (folder,) = (folder for folder in zoo.known if folder.name == absent.name)
            for factor in (1, 2):
                planted = zoo.merged(weights | {folder: factor * absent.detection_limit}, method, "bfloat16", density, seed=place)
                named = {component.name for component in zoo.decomposed(planted, "bfloat16").components}
                seen[f"found at {factor} x the limit"].append(absent.name in named)
    return {
        "planted": len(stated),
        "without a limit": without,
        "limits": [float(np.min(stated)), float(np.median(stated)), float(np.max(stated))] if stated else [],
        **{factor: float(np.mean(found)) for factor, found in seen.items()},
    }


ROWS: dict[str, Callable[[Zoo, float], Row]] = {
    "calibration": calibration,
    "large": large,
    "duplicates": duplicates,
    "many": many,
    "limits": limits,
}


@dataclass(frozen=True)
class Outcome:
    """What was named in one target.

    Attributes:
        right, false, missed: how many components.
        error: the largest relative error of a right one's coefficient; None without one.
        seconds: of the certificate.
    """

    right: int
    false: int
    missed: int
    error: float | None
    seconds: float


def _certified(model: Synthetic, weights: Mapping[int, float], unknown: Sequence[int]) -> Outcome:
    """Decompose a merge over all atoms but the unknown ones."""
    target, places = model.target(weights), [place for place in range(len(model.atoms)) if place not in unknown]
    atoms = [model.atoms[place] for place in places]
    started = time.monotonic()
    result = certify(atoms, target, gram(atoms, target), Grid(model.base.__getitem__, lambda _: torch.bfloat16))
    seconds = time.monotonic() - started
    found = {places[component.atom]: component.coefficient for component in result.found}
    truth = weights.keys() - set(unknown)
    errors = [abs(found[place] / acted(weights[place]) - 1) for place in found.keys() & truth]
    return Outcome(len(errors), len(found.keys() - truth), len(truth - found.keys()), max(errors, default=None), seconds)


def _summary(outcomes: Sequence[Outcome]) -> Row:
    right, false, missed = (sum(getattr(outcome, part) for outcome in outcomes) for part in ("right", "false", "missed"))
    return {
        "targets": len(outcomes),
        "precision": right / (right + false) if right + false else None,
        "recall": right / (right + missed),
        "errors of coefficients": [outcome.error for outcome in outcomes],
        "seconds": float(np.median([outcome.seconds for outcome in outcomes])),
    }


def _verdict(result: Decomposition, truth: str, family: Iterable[str]) -> str:
    found = [component for component in result.components if component.name in family]
    if len(found) != 1:
        return "both named" if found else "missed"
    if found[0].group:
        return "group" if truth in (found[0].name, *found[0].group) else "wrong"
    return "right" if found[0].name == truth else "wrong"


def _count(targets: int, share: float) -> int:
    return max(round(share * targets), 1)


def _some(items: Sequence[Any], count: int, rng: np.random.Generator) -> list[Any]:
    return [items[place] for place in rng.choice(len(items), min(count, len(items)), replace=False)]


def _amounts(count: int, rng: np.random.Generator) -> list[float]:
    """Weights of a merge, in hundredths."""
    values: list[float] = rng.uniform(0.3, 1.0, count).round(2).tolist()
    return values


def _weights(folders: Sequence[Path], rng: np.random.Generator) -> dict[Path, float]:
    return dict(zip(folders, _amounts(len(folders), rng), strict=True))


def _show(figures: Mapping[str, Any], indent: int = 2) -> None:
    for name, value in figures.items():
        if isinstance(value, Mapping) and len(value) > MANY:
            print(" " * indent + f"{name:<34} {_text(min(value.values()))} to {_text(max(value.values()))} ({len(value)} of them)")
        elif isinstance(value, Mapping):
            print(" " * indent + name)
            _show(value, indent + 2)
        else:
            print(" " * indent + f"{name:<34} {_text(value)}")


def _text(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(_text, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
