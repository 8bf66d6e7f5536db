"""Measure `unmerge recover` on new targets: known, mixed, adapters, and targets that no recipe makes.

    python -m unmerge_lab.benchmarks.recover [--out DIR] [--json FILE] [--part I/N] [--only METHOD] [--seed FIRST]

Each target is made, recovered and compared with what it was made from; one file keeps what came of it, so that a run that was cut
short is taken up where it stopped. Several parts may run beside each other; the figures are gathered by the run without --part.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import yaml
from peft import PeftModel
from safetensors.torch import load_file, save_file

from unmerge.core.records import environment, read_json, write_json, write_text
from unmerge.decomposition import open_base, open_dictionary, open_vector
from unmerge.evaluation.models import load_model
from unmerge.recipes import merge
from unmerge.recipes.acting import AVERAGES, UNROUNDED
from unmerge.recipes.inputs import Inputs
from unmerge.recipes.record import RecoveredRecipe
from unmerge.recipes.recover import recover
from unmerge_lab import embedded_zoo
from unmerge_lab.benchmarks.recipes import BASE, Wanted, targets
from unmerge_lab.benchmarks.zoo_targets import Zoo
from unmerge_lab.zoo.embedded import KNOWN

#: noise is this share of each matrix's standard deviation
NOISE = 0.01
#: a recipe that makes this share of the changed weights again is right, whatever its name
REBUILT = 0.999
FULL = Path("runs/full/checkpoints")


def main() -> None:
    """Make, recover, compare; keep what came."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/recover"), help="folder for finished targets")
    parser.add_argument("--json", type=Path, default=Path("runs/recover.json"), help="the file that keeps the figures")
    parser.add_argument("--part", default="", help="I/N: every N-th target, from the I-th on")
    parser.add_argument("--seed", type=int, default=9900, help="of every method's first target")
    parser.add_argument("--only", default="", help="one method, or one group")
    parser.add_argument("--full", type=Path, default=FULL, help="full fine-tunes, made by make full-finetunes")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        zoo = Zoo(Path(scratch))
        base = open_base(zoo.bases["bfloat16"])
        layers = Inputs(base, open_dictionary([embedded_zoo() / KNOWN], base), Path(scratch)).layers
        wanted = list(targets([path.name for path in zoo.known], [path.name for path in zoo.unknown], layers, arguments.seed))
        chosen = [target for target in wanted if arguments.only in ("", target.method, target.group)]
        first, step = (int(number) for number in (arguments.part or "0/1").split("/"))
        for target in chosen[first::step]:
            file = arguments.out / f"{target.name}.json"
            if not file.exists():
                write_json(file, outcome(target, zoo, Path(scratch) / "target", arguments.full))
                _show(target, read_json(file, "an outcome"))
    if not arguments.part:
        outcomes = [read_json(file, "an outcome") for target in wanted if (file := arguments.out / f"{target.name}.json").exists()]
        write_json(arguments.json, {"outcomes": outcomes, "planned": len(wanted), "environment": environment().model_dump()})


def outcome(target: Wanted, zoo: Zoo, folder: Path, full: Path) -> dict[str, Any]:
    """Make a target, recover it, and set what came beside what it was made from."""
    made = make(target, zoo, folder, full)
    base = open_base(zoo.bases[target.dtype])
    started = time.monotonic()
    record = recover(open_vector(made, base), open_dictionary([embedded_zoo() / KNOWN], base), base, folder / "found.yml")
    seconds = time.monotonic() - started
    shutil.rmtree(folder)
    return {"target": asdict(target), "found": _found(record), "compared": compared(target, record), "seconds": seconds}


def make(target: Wanted, zoo: Zoo, folder: Path, full: Path) -> Path:
    """The target on disk."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    base = zoo.bases[target.dtype]
    places = {BASE: str(base)} | {path.name: str(path) for path in [*zoo.known, *zoo.unknown]}
    if target.group == "adapter":
        return _combined(target, places, base, folder)
    if target.method == "full fine-tune":
        return sorted(path.parent for path in full.glob("*/config.json"))[target.seed % 20]
    if target.method == "noise":
        return _noised(base, folder / "noisy", target.seed)
    file = folder / "target.yml"
    write_text(file, yaml.safe_dump(_configuration(target, places, base), sort_keys=False))
    merge(file, folder / "target", target.seed)
    return folder / "target"


def _configuration(target: Wanted, places: Mapping[str, str], base: Path) -> dict[str, Any]:
    shared = dict(target.shared)
    written: dict[str, Any] = {"merge_method": shared.pop("method", target.method), "dtype": target.dtype}
    # unmerge's own merge puts an adapter on the base that is named; mergekit itself must not see it where the method takes none
    names = {name: place if name == BASE else f"{base}+{place}" for name, place in places.items()}
    if target.base is not None:
        written["base_model"] = names[target.base]
    if target.slices:
        written["slices"] = [{"sources": [{"model": names[model], "layer_range": [first, end]}]} for model, first, end in target.slices]
        return written
    written["models"] = [{"model": names[name], "parameters": settings} for name, settings in target.inputs.items()]
    return {**written, "parameters": shared}


def _combined(target: Wanted, places: Mapping[str, str], base: Path, folder: Path) -> Path:
    """PEFT's own combination, saved by PEFT."""
    model, _ = load_model(base)
    first, *others = target.inputs
    combined = PeftModel.from_pretrained(model, places[first], adapter_name=first)
    for name in others:
        combined.load_adapter(places[name], adapter_name=name)
    torch.manual_seed(target.seed)
    weights = [settings["weight"] for settings in target.inputs.values()]
    combined.add_weighted_adapter(list(target.inputs), weights, "combined", combination_type=target.method, **target.shared)
    combined.save_pretrained(str(folder), selected_adapters=["combined"], save_embedding_layers=False)
    return folder / "combined"


def _noised(base: Path, out: Path, seed: int) -> Path:
    shutil.copytree(base, out)
    torch.manual_seed(seed)
    tensors = load_file(out / "model.safetensors")
    for name, tensor in tensors.items():
        if tensor.ndim == 2:
            tensors[name] = (tensor.float() + NOISE * tensor.float().std() * torch.randn(tensor.shape)).to(tensor.dtype)
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    return out


def _found(record: RecoveredRecipe) -> dict[str, Any]:
    kept = record.model_dump(mode="json", exclude={"environment", "dictionary", "target", "base", "configuration", "looked", "skipped"})
    if record.proof is not None:
        kept["proof"]["by_kind"] = {}
    return kept


def compared(target: Wanted, record: RecoveredRecipe) -> dict[str, Any]:
    """Whether the answer is right, and the largest error of weights (relative) and of densities."""
    method = record.method.removeprefix("peft:") if record.method else None
    alike = {"linear": "task_arithmetic"} if target.group == "mixed" else {}  # one cannot be told from the other beside something unknown
    same = method == alike.get(target.method, target.method) if target.group != "nothing" else record.answer in ("none of these", "fine-tune")
    rebuilt = (record.identical_share or 0.0) >= REBUILT
    models = record.parameters.get("models", {}) if isinstance(record.parameters.get("models", {}), dict) else {}
    known = {name: settings for name, settings in target.inputs.items() if name not in target.unknown}
    weights = _weight_error(target, known, models, record)
    densities = [
        abs(float(models[name]["density"]) - float(settings["density"]))
        for name, settings in known.items()
        if "density" in settings and isinstance(models.get(name, {}).get("density"), float | int)
    ]
    return {"same method": same, "rebuilt": rebuilt, "weight error": weights, "density error": max(densities, default=None)}


def _weight_error(target: Wanted, known: Mapping[str, Any], models: Mapping[str, Any], record: RecoveredRecipe) -> float | None:
    """The largest relative error of a weight as the merge's dtype has it: of its share where a common factor does not show."""
    if not known or any("weight" not in settings for settings in known.values()) or target.group == "nothing":
        return None
    if target.group == "mixed" and target.method in ("task_arithmetic", "linear"):
        total = sum(float(settings["weight"]) for settings in target.inputs.values()) if target.method == "linear" else 1.0
        acted = {name: record.acted[name].coefficient if name in record.acted else 0.0 for name in known}
        return max(abs(acted[name] / (float(settings["weight"]) / total) - 1) for name, settings in known.items())
    found = {name: models.get(name, {}).get("weight") for name in known}
    if not all(isinstance(weight, float | int) for weight in found.values()):
        return None
    dtype = torch.float32 if target.method in UNROUNDED else getattr(torch, target.dtype)
    theirs = torch.tensor([float(settings["weight"]) for settings in known.values()]).to(dtype)
    ours = torch.tensor([float(found[name]) for name in known]).to(dtype)
    if record.scale_free or target.method in AVERAGES:
        ours, theirs = ours / ours.sum(), theirs / theirs.sum()
    return float((ours.double() / theirs.double() - 1).abs().max())


def _show(target: Wanted, kept: Mapping[str, Any]) -> None:
    found, proof = kept["found"], kept["found"]["proof"] or {}
    said = ", ".join(f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in kept["compared"].items())
    shares = {key: round(proof[key], 4) for key in ("identical_share", "explained", "telling") if proof.get(key) is not None}
    print(f"{target.name}: {found['answer']} {found['method']}; {said}; {shares}; {kept['seconds']:.1f} s", flush=True)


if __name__ == "__main__":
    main()
