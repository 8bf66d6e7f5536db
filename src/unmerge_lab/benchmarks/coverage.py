"""Whether intervals hold when something happened to a merge afterwards: further training, requantisation, noise.

    python -m unmerge_lab.benchmarks.coverage [--out DIR] [--json FILE] [--only KIND] [--part I/N]

Targets are merges of the embedded zoo's adapters, W + sum of c B A in float32, known ones alone or beside unknown ones. Then one thing happens
to every matrix of the merge, and the result is saved in bfloat16 or float32. One file a target keeps what came of it.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from scipy import stats
from torch import Tensor

from unmerge.checkpoints import Adapter, Checkpoint
from unmerge.core.records import environment, read_json, write_json
from unmerge.decomposition import Dictionary, decompose, open_base, open_vector
from unmerge.evaluation.models import load_model
from unmerge_lab import embedded_zoo
from unmerge_lab.benchmarks.zoo_targets import write_model
from unmerge_lab.studies.families.train import answer_loss, batches
from unmerge_lab.zoo.embedded import BASE, KNOWN, UNKNOWN
from unmerge_lab.zoo.tasks import TASKS

Tensors = dict[str, Tensor]
DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}
#: targets of each kind, and the first one's seed: the width of intervals was set on seeds below that
EACH, FIRST = 10, 400
#: of further training
STEPS, LORA_RANK, LORA_RATE = 30, 8, 2e-3
#: weights that share a scale in 4 bits
GROUP = 32
CONFIDENCE = 0.95
#: tasks of further training: those of which the zoo has no adapter
_OTHERS = [task.name for task in TASKS if not any((embedded_zoo() / half / task.name).exists() for half in (KNOWN, UNKNOWN))]


@dataclass(frozen=True)
class Wanted:
    """A target to be made.

    Attributes:
        kind: what happens to it, a name in KINDS.
        dtype: that it is saved in.
        known, unknown: weights by adapter.
        seed: of what happens.
    """

    kind: str
    dtype: str
    known: Mapping[str, float]
    unknown: Mapping[str, float]
    seed: int

    @property
    def name(self) -> str:
        """For its file."""
        return f"{self.kind.replace(' ', '-')}-{self.seed}"


@dataclass(frozen=True)
class Merged:
    """A merge that something is about to happen to.

    Attributes:
        tensors: its weights, in float32.
        change: what the merge changed, by tensor.
        scratch: a folder for what is on the way.
        seed: of what happens.
    """

    tensors: Tensors
    change: Tensors
    scratch: Path
    seed: int


Disturbance = Callable[[Merged], Tensors]


def fully(rate: float) -> Disturbance:
    """Further training of all weights by AdamW on some task."""

    def disturbed(merged: Merged) -> Tensors:
        model, tokenizer = _model(merged)
        _train(model, tokenizer, [*model.parameters()], rate, merged.seed)
        return _weights(model, merged)

    return disturbed


def by_lora(merged: Merged) -> Tensors:
    """Further training by PEFT's LoRA, merged in."""
    model, tokenizer = _model(merged)
    torch.manual_seed(merged.seed)
    adapted = get_peft_model(model, LoraConfig(r=LORA_RANK, lora_alpha=LORA_RANK, target_modules="all-linear", task_type="CAUSAL_LM"))
    _train(model, tokenizer, [parameter for parameter in adapted.parameters() if parameter.requires_grad], LORA_RATE, merged.seed)
    return _weights(adapted.merge_and_unload(), merged)


def noisy(share: float) -> Disturbance:
    """Normal noise, in each tensor as a share of what the merge changed in it."""

    def disturbed(merged: Merged) -> Tensors:
        generator = torch.Generator().manual_seed(merged.seed)
        return {
            name: values + share * merged.change[name].norm() / values.numel() ** 0.5 * torch.randn(values.shape, generator=generator)
            for name, values in merged.tensors.items()
        }

    return disturbed


def quantised(levels: int | None, group: int | None) -> Disturbance:
    """Round to the nearest of evenly spaced levels, or of float8's where there are none, scaled by each group's largest weight."""

    def disturbed(merged: Merged) -> Tensors:
        return {name: _quantised(values, levels, group) if values.ndim == 2 else values for name, values in merged.tensors.items()}

    return disturbed


def _quantised(values: Tensor, levels: int | None, group: int | None) -> Tensor:
    parts = values.reshape(-1, group or values.shape[1])
    largest = parts.abs().amax(1, keepdim=True).clamp_min(1e-12)
    if levels is None:
        most = torch.finfo(torch.float8_e4m3fn).max
        return ((parts / largest * most).to(torch.float8_e4m3fn).float() * largest / most).reshape(values.shape)
    return ((parts / largest * levels).round() * largest / levels).reshape(values.shape)


KINDS: dict[str, Disturbance] = {
    "full 1e-5": fully(1e-5),
    "full 3e-5": fully(3e-5),
    "full 1e-4": fully(1e-4),
    "full 3e-4": fully(3e-4),
    "lora": by_lora,
    "int8": quantised(127, None),
    "float8": quantised(None, None),
    "int4": quantised(7, GROUP),
    "noise .1": noisy(0.1),
    "noise .3": noisy(0.3),
    "noise 1": noisy(1.0),
    "noise 3": noisy(3.0),
}


def main() -> None:
    """Make, decompose, compare; keep what came."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/coverage"), help="folder for finished targets")
    parser.add_argument("--json", type=Path, default=Path("runs/coverage.json"), help="the file that keeps the figures")
    parser.add_argument("--only", default="", help="one kind")
    parser.add_argument("--part", default="0/1", help="I/N: every N-th target, from the I-th on")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    base = open_base(embedded_zoo() / BASE)
    adapters = {
        half: {path.parent.name: Adapter.open(path.parent, base) for path in sorted((embedded_zoo() / half).glob("*/adapter_config.json"))}
        for half in (KNOWN, UNKNOWN)
    }
    planned = targets([*adapters[KNOWN]], [*adapters[UNKNOWN]])
    first, step = map(int, arguments.part.split("/"))
    for target in [target for target in planned if arguments.only in ("", target.kind)][first::step]:
        file = arguments.out / f"{target.name}.json"
        if not file.exists():
            with tempfile.TemporaryDirectory() as scratch:
                write_json(file, outcome(target, base, adapters, Path(scratch)))
            _show(read_json(file, "an outcome"))
    outcomes = [read_json(file, "an outcome") for target in planned if (file := arguments.out / f"{target.name}.json").exists()]
    write_json(arguments.json, {**summary(outcomes), "planned": len(planned), "environment": environment().model_dump()})


def targets(known: list[str], unknown: list[str]) -> list[Wanted]:
    """All that are made: every second one beside one or two unknown adapters, every second pair in float32."""
    wanted = []
    for kind, place in itertools.product(KINDS, range(EACH)):
        rng = np.random.default_rng([FIRST + place, *kind.encode()])
        drawn = {
            half: {str(name): round(rng.uniform(0.3, 1.2), 2) for name in rng.choice(names, count, replace=False)}
            for half, names, count in (("known", known, int(rng.integers(1, 5))), ("unknown", unknown, int(rng.integers(1, 3)) * (place % 2)))
        }
        wanted.append(Wanted(kind, "float32" if place // 2 % 2 else "bfloat16", drawn["known"], drawn["unknown"], FIRST + place))
    return wanted


def outcome(target: Wanted, base: Checkpoint, adapters: Mapping[str, Mapping[str, Adapter]], scratch: Path) -> dict[str, Any]:
    """What was said of each atom."""
    parts = [(adapters[half][name], c) for half, weights in ((KNOWN, target.known), (UNKNOWN, target.unknown)) for name, c in weights.items()]
    merged = {name: base.read(name).float() for name in base.shapes}
    change = {name: torch.zeros_like(values) for name, values in merged.items()}
    for adapter, weight in parts:
        for name in adapter.shapes:
            change[name] += weight * adapter.delta(name).dense().float()
    merged = {name: values + change[name] for name, values in merged.items()}
    disturbed = KINDS[target.kind](Merged(merged, change, scratch, target.seed))
    square = sum(float(values.square().sum()) for values in change.values())
    moved = sum(float((disturbed[name] - merged[name]).square().sum()) for name in merged)
    folder = write_model({name: values.to(DTYPES[target.dtype]) for name, values in disturbed.items()}, base, target.dtype, scratch / "target")
    started = time.monotonic()
    result = decompose(open_vector(folder, base), Dictionary(tuple(adapters[KNOWN].values()), ()), base)
    return {
        **asdict(target),
        "moved": (moved / square) ** 0.5,
        "components": [component.model_dump(mode="json") for component in result.components],
        "limits": {entry.name: entry.detection_limit for entry in result.absent},
        "unexplained": result.unexplained.model_dump(mode="json"),
        "seconds": round(time.monotonic() - started, 2),
    }


def summary(outcomes: list[dict[str, Any]]) -> dict[str, Any]:
    """Coverage by kind, and over all; names that are wrong or missing."""
    by_kind = {kind: _summary([outcome for outcome in outcomes if outcome["kind"] == kind]) for kind in KINDS}
    groups = {group: [outcome for outcome in outcomes if bool(outcome["unknown"]) == mixed] for group, mixed in (("known", False), ("mixed", True))}
    return {
        "kinds": {kind: figures for kind, figures in by_kind.items() if figures["targets"]},
        "groups": {group: _summary(own) for group, own in groups.items()},
        "all": _summary(outcomes),
    }


def _summary(outcomes: list[dict[str, Any]]) -> dict[str, Any]:
    told = [(part, outcome["known"][part["name"]]) for outcome in outcomes for part in outcome["components"] if part["name"] in outcome["known"]]
    with_interval = [(part, truth) for part, truth in told if part["interval"]]
    holds = [part["interval"][0] <= truth <= part["interval"][1] for part, truth in with_interval]
    widths = [(part["interval"][1] - part["interval"][0]) / 2 / truth for part, truth in with_interval]
    errors = [abs(part["coefficient"] / truth - 1) for part, truth in told]
    low, high = stats.binom.interval(CONFIDENCE, len(holds), 0.95) if holds else (0.0, 0.0)
    return {
        "targets": len(outcomes),
        "moved": float(np.median([outcome["moved"] for outcome in outcomes])) if outcomes else None,
        "components": sum(len(outcome["known"]) for outcome in outcomes),
        "found": len(told),
        "false": sum(part["name"] not in outcome["known"] for outcome in outcomes for part in outcome["components"]),
        "with an interval": len(holds),
        "hold": sum(holds),
        "asked": [low, high],
        "half width": float(np.median(widths)) if widths else None,
        "error": [float(np.median(errors)), float(np.max(errors))] if errors else None,
    }


def _model(merged: Merged) -> tuple[Any, Any]:
    base = open_base(embedded_zoo() / BASE)
    model, tokenizer = load_model(write_model(merged.tensors, base, "float32", merged.scratch / "model"))
    return model.float(), tokenizer


def _train(model: Any, tokenizer: Any, parameters: list[Tensor], rate: float, seed: int) -> None:
    for parameter in parameters:
        parameter.requires_grad_(True)
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.0)
    task = _OTHERS[seed % len(_OTHERS)]
    for tokens, answers in itertools.islice(batches(task, 7, seed, tokenizer), STEPS):
        loss = answer_loss(model, tokens, answers)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def _weights(model: Any, like: Merged) -> Tensors:
    state = model.state_dict()
    return {name: state[name].detach().float().clone() for name in like.tensors}


def _show(outcome: dict[str, Any]) -> None:
    said = {part["name"]: part for part in outcome["components"]}
    parts = []
    for name, truth in outcome["known"].items():
        if name not in said:
            parts.append(f"{truth:g} missed")
        else:
            low, high = said[name]["interval"] or (float("nan"), float("nan"))
            parts.append(f"{truth:g} as {said[name]['coefficient']:.4f} [{low:.4f}, {high:.4f}]{'' if low <= truth <= high else ' !'}")
    false = [name for name in said if name not in outcome["known"]]
    print(f"{outcome['kind']} {outcome['dtype']} moved {outcome['moved']:.3f}:", "; ".join(parts), "false:" if false else "", *false, flush=True)


if __name__ == "__main__":
    main()
