"""Merges in which an adapter acts in a part of the model: mergekit's layer gradients and filters, on the embedded zoo.

    python -m unmerge_lab.benchmarks.partial_merges [--out DIR] [--json FILE] [--only KIND]

In every target one adapter of the dictionary acts in a part of the model or differs between parts, beside another known one that does not; in
half of them beside an unknown one. All are made by mergekit. One file a target keeps what came of it.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from unmerge.checkpoints import Adapter
from unmerge.core.records import environment, read_json, write_json
from unmerge.decomposition.result import Component, ProfilePart
from unmerge.recipes import merge
from unmerge.vectors import norm_squared
from unmerge_lab.benchmarks.synthetic import acted
from unmerge_lab.benchmarks.zoo_targets import Zoo

#: targets of each kind, and layers of the zoo's base
EACH, LAYERS = 10, 4
#: a tensor's coefficient, of a largest one of 1, from its layer and its name
Shape = Callable[[int, str], float]


@dataclass(frozen=True)
class Kind:
    """A setting of mergekit.

    Attributes:
        weight: the parameter ``weight`` of a model, for a largest coefficient of c.
        shape: what it makes of each tensor.
    """

    weight: Callable[[float], Any]
    shape: Shape


def _filters(values: Mapping[str, float]) -> Kind:
    """A coefficient for tensors whose name has a text in it; 0 for the others."""
    return Kind(
        lambda c: [*({"filter": part, "value": round(c * value, 4)} for part, value in values.items()), {"value": 0.0}],
        lambda _, name: next((value for part, value in values.items() if part in name), 0.0),
    )


KINDS: dict[str, Kind] = {
    "gradient 0, .5, 1": Kind(lambda c: [0.0, c / 2, c], lambda layer, _: layer / (LAYERS - 1)),
    "gradient 1, .2": Kind(lambda c: [c, 0.2 * c], lambda layer, _: 1 - 0.8 * layer / (LAYERS - 1)),
    "mlp": _filters({"mlp": 1.0}),
    "attention": _filters({"self_attn": 1.0}),
    "attention 1, mlp .3": _filters({"self_attn": 1.0, "mlp": 0.3}),
    "one layer": _filters({"layers.2.": 1.0}),
}


@dataclass(frozen=True)
class Wanted:
    """A target to be made: a known adapter in part, another one as a whole, unknown ones; coefficients by name."""

    kind: str
    dtype: str
    part: tuple[str, float]
    whole: tuple[str, float]
    unknown: Mapping[str, float]
    seed: int

    @property
    def name(self) -> str:
        """For its file."""
        return f"{''.join(letter if letter.isalnum() else '-' for letter in self.kind)}-{self.seed}"


def main() -> None:
    """Make, decompose, compare; keep what came."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/partial"), help="folder for finished targets")
    parser.add_argument("--json", type=Path, default=Path("runs/partial.json"), help="the file that keeps the figures")
    parser.add_argument("--only", default="", help="one kind")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        zoo = Zoo(Path(scratch))
        planned = targets(zoo)
        for target in planned:
            file = arguments.out / f"{target.name}.json"
            if not file.exists() and arguments.only in ("", target.kind):
                write_json(file, outcome(target, zoo))
                _show(read_json(file, "an outcome"))
    outcomes = [read_json(file, "an outcome") for target in planned if (file := arguments.out / f"{target.name}.json").exists()]
    write_json(arguments.json, {**summary(outcomes), "planned": len(planned), "environment": environment().model_dump()})


def targets(zoo: Zoo) -> list[Wanted]:
    """All that are made: every second one beside something unknown, every second pair in float32."""
    wanted = []
    for kind, place in itertools.product(KINDS, range(EACH)):
        rng = np.random.default_rng([place, *kind.encode()])
        names = [zoo.known[row].name for row in rng.choice(len(zoo.known), 2, replace=False)]
        unknown = [zoo.unknown[row].name for row in rng.choice(len(zoo.unknown), place % 2, replace=False)]
        first, second, *more = (round(float(value), 2) for value in rng.uniform(0.4, 1.1, 2 + len(unknown)))
        dtype = "float32" if place // 2 % 2 else "bfloat16"
        wanted.append(Wanted(kind, dtype, (names[0], first), (names[1], second), dict(zip(unknown, more, strict=True)), place))
    return wanted


def outcome(target: Wanted, zoo: Zoo) -> dict[str, Any]:
    """What was said of the adapter that acts in part, part by part, and of the one that acts as a whole."""
    folders = {folder.name: folder for folder in (*zoo.known, *zoo.unknown)}
    kind, (name, largest) = KINDS[target.kind], target.part
    models = {name: kind.weight(largest), target.whole[0]: target.whole[1], **target.unknown}
    recipe = {
        "merge_method": "task_arithmetic",
        "base_model": str(zoo.bases[target.dtype]),
        "dtype": target.dtype,
        "models": [{"model": str(folders[model]), "parameters": {"weight": weight}} for model, weight in models.items()],
    }
    file = zoo.scratch / f"{target.name}.yml"
    file.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    folder = zoo.scratch / target.name
    merge(file, folder)
    result = zoo.decomposed(folder, target.dtype)
    named = {component.name: component for component in result.components}
    adapter, takes = Adapter.open(folders[name]), acted if target.dtype == "bfloat16" else float
    truth = {tensor: takes(largest * kind.shape(_layer(tensor), tensor)) for tensor in adapter.shapes}
    sizes = {tensor: norm_squared(adapter.delta(tensor)) for tensor in adapter.shapes}
    mean = (sum(sizes[tensor] * truth[tensor] ** 2 for tensor in truth) / sum(sizes.values())) ** 0.5
    whole = named.get(target.whole[0])
    return {
        **asdict(target),
        "mean": mean,
        "limit": next((entry.detection_limit for entry in result.absent if entry.name == name), None),
        "found": name in named,
        "parts": _parts(named[name], truth, sizes) if name in named else [],
        "identity": named[name].identity if name in named else None,
        "whole found": whole is not None,
        "whole holds": bool(whole and whole.interval and whole.interval[0] <= takes(target.whole[1]) <= whole.interval[1]),
        "whole": [whole.coefficient, whole.interval] if whole else None,
        "false": [other for other in named if other not in (name, target.whole[0])],
    }


def _parts(component: Component, truth: Mapping[str, float], sizes: Mapping[str, float]) -> list[dict[str, Any]]:
    """Each part of the profile: its coefficient, its interval, and the least and the largest that acted in its tensors."""
    whole = ProfilePart(layers="", kind="", coefficient=component.coefficient, interval=component.interval)
    found = []
    for part in component.profile or [whole]:
        acted = [truth[tensor] for tensor in truth if sizes[tensor] and _is_in(tensor, part)]
        found.append({**part.model_dump(mode="json"), "least": min(acted), "most": max(acted)})
    return found


def _is_in(tensor: str, part: ProfilePart) -> bool:
    first, _, last = part.layers.partition("-")
    return part.kind in tensor and (not first or int(first) <= _layer(tensor) <= int(last or first))


def _layer(tensor: str) -> int:
    return int(tensor.split(".")[2])


def summary(outcomes: list[dict[str, Any]]) -> dict[str, Any]:
    """Figures by kind, by group, and of all."""
    return {
        "kinds": {kind: _summary([one for one in outcomes if one["kind"] == kind]) for kind in KINDS},
        "groups": {
            "known": _summary([one for one in outcomes if not one["unknown"]]),
            "mixed": _summary([one for one in outcomes if one["unknown"]]),
        },
        "all": _summary(outcomes),
    }


def _summary(outcomes: list[dict[str, Any]]) -> dict[str, Any]:
    parts = [part for outcome in outcomes for part in outcome["parts"]]
    off = [max(abs(part["coefficient"] - part["least"]), abs(part["coefficient"] - part["most"])) for part in parts]
    return {
        "targets": len(outcomes),
        "found": sum(outcome["found"] for outcome in outcomes),
        "above the limit": sum(outcome["found"] or outcome["limit"] is None or outcome["mean"] >= outcome["limit"] for outcome in outcomes),
        "false": sum(len(outcome["false"]) for outcome in outcomes),
        "parts": len(parts),
        "parts that hold": sum(_holds(part) for part in parts),
        "largest error": max(off, default=None),
        "others": sum(outcome["whole found"] for outcome in outcomes),
        "others that hold": sum(outcome["whole holds"] for outcome in outcomes),
    }


def _holds(part: Mapping[str, Any]) -> bool:
    low, high = part["interval"] or (np.nan, np.nan)
    return bool(low <= part["least"] and part["most"] <= high)


def _show(outcome: dict[str, Any]) -> None:
    said = [
        f"{part['layers']} {part['kind']} {part['coefficient']:.4f} of {part['least']:.4g}{'' if _holds(part) else ' !'}" for part in outcome["parts"]
    ]
    group = "mixed" if outcome["unknown"] else "known"
    print(outcome["kind"], group, outcome["dtype"], "; ".join(said) or f"missed, limit {outcome['limit']}", *outcome["false"], flush=True)


if __name__ == "__main__":
    main()
