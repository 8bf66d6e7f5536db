"""The order of rounding, on merges by the libraries that make them: PEFT, transformers, mergekit, and by hand.

    python -m unmerge_lab.benchmarks.rounding [--out DIR] [--json FILE] [--only PRODUCER] [--part I/N]

A small llama-like model by transformers, adapters by PEFT with drawn factors. Each merge is made, saved, decomposed, and compared with
what it was made from; one file a target keeps what came of it, so that a run that was cut short goes on where it stopped.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.utils.logging import disable_progress_bar

from unmerge.core.records import environment, read_json, write_json
from unmerge.decomposition import decompose, open_base, open_dictionary, open_vector
from unmerge.recipes import merge

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
#: adapters in the dictionary, and one that is not
KNOWN, RANK, ALPHA = 6, 4, 8
SIZES = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 4}
#: changes, in steps of bfloat16's or float16's grid around the usual weight
STEPS = (0.5, 1.0, 2.0, 5.0, 20.0)
UNKNOWN = "unknown"


@dataclass(frozen=True)
class Wanted:
    """A merge to be made.

    Attributes:
        producer: how it is made, a name in PRODUCERS.
        dtype: of the base on disk.
        adapters: the dtype that the adapters are saved in.
        steps: the root mean square of the change that all adapters make together, in steps of the grid.
        weights: of the adapters, by name.
        seed: of the model and its adapters.
    """

    producer: str
    dtype: str
    adapters: str
    steps: float
    weights: Mapping[str, float]
    seed: int

    @property
    def name(self) -> str:
        """For its file."""
        return f"{self.producer.replace(' ', '-').replace(',', '')}-{self.dtype}-{self.adapters}-{self.steps:g}-{len(self.weights)}-{self.seed}"

    @property
    def is_mixed(self) -> bool:
        """Whether something unknown is in it."""
        return UNKNOWN in self.weights


@dataclass(frozen=True)
class Producer:
    """A way to merge.

    Attributes:
        make: writes the merge of some adapters (folders and weights) into a base (folder) to a folder.
        one, several: the order of rounding that it is, on a base of 16 bits.
        dtypes: of bases that it is tried on.
        most: adapters that it takes at most.
        in_float32: the same of several adapters on a base of float32, where it is another.
    """

    make: Callable[[Path, Mapping[Path, float], Path], None]
    one: str
    several: str
    dtypes: tuple[str, ...] = ("bfloat16", "float16", "float32")
    most: int = 3
    in_float32: str = ""

    def order(self, target: Wanted) -> str:
        """The order of rounding of a target; empty where adapters in float32 leave nothing to be told of."""
        several = len(target.weights) > 1
        if target.dtype == "float32" and self.in_float32:
            return self.in_float32 if several or self.in_float32.startswith("atoms") else "together"
        return self.several if several else self.one


def main() -> None:
    """Make, decompose, compare; keep what came."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/rounding"), help="folder for finished targets")
    parser.add_argument("--json", type=Path, default=Path("runs/rounding.json"), help="the file that keeps the figures")
    parser.add_argument("--only", default="", help="one producer")
    parser.add_argument("--part", default="0/1", help="I/N: every N-th target, from the I-th on")
    arguments = parser.parse_args()
    disable_progress_bar()
    wanted = [target for target in targets() if arguments.only in ("", target.producer)]
    first, step = (int(number) for number in arguments.part.split("/"))
    for target in wanted[first::step]:
        file = arguments.out / f"{target.name}.json"
        if not file.exists():
            with tempfile.TemporaryDirectory() as scratch:
                write_json(file, outcome(target, Path(scratch)))
            _show(read_json(file, "an outcome"))
    outcomes = [read_json(file, "an outcome") for target in targets() if (file := arguments.out / f"{target.name}.json").exists()]
    write_json(arguments.json, {"outcomes": outcomes, "planned": len(targets()), "environment": environment().model_dump()})


def targets() -> list[Wanted]:
    """Every producer with one to three adapters, every size of change, known and mixed."""
    found, seed = [], 0
    for producer, way in PRODUCERS.items():
        for place in range(8):
            seed += 1
            dtype = way.dtypes[place % len(way.dtypes)]
            atoms = min(1 + (seed + place) % 3, way.most)
            names = [f"atom{(seed + 2 * other) % KNOWN}" for other in range(atoms)]
            amounts = (0.8, 1.0, 0.35, 0.6, 1.2)
            weights = {name: amounts[(seed + at) % len(amounts)] for at, name in enumerate(names)}
            if place % 4 == 3 and way.most > 1:
                weights[UNKNOWN] = 0.7
            found.append(Wanted(producer, dtype, ("float32", "bfloat16")[place // 2 % 2], STEPS[seed % len(STEPS)], weights, seed))
    return found


def outcome(target: Wanted, scratch: Path) -> dict[str, Any]:
    """Make a target, decompose it, and set what came beside what it was made from."""
    base, made = scratch / "base", scratch / "target"
    _write_base(base, target)
    folders = {name: scratch / "unknown" / name if name == UNKNOWN else scratch / "known" / name for name in [*_names(), UNKNOWN]}
    length = sum(weight**2 for weight in acted(target).values()) ** 0.5
    for place, folder in enumerate(folders.values()):
        _write_adapter(base, folder, target, 10 * target.seed + place, target.steps / length)
    PRODUCERS[target.producer].make(base, {folders[name]: weight for name, weight in target.weights.items()}, made)
    opened = open_base(base)
    started = time.monotonic()
    result = decompose(open_vector(made, opened), open_dictionary([scratch / "known"], opened), opened)
    seconds = time.monotonic() - started
    test = result.test
    return {
        "target": {**asdict(target), "weights": dict(target.weights)},
        "acted": acted(target),
        "wanted order": PRODUCERS[target.producer].order(target),
        "unchanged": _unchanged(base, made),
        "components": {part.name: [part.coefficient, *(part.interval or (None, None))] for part in result.components},
        "order": test.rounding_order if test else None,
        "ties": test.rounding_ties if test else [],
        "sequence": test.rounding_sequence if test else [],
        "identical": test.rounding_identical if test else None,
        "estimator": test.estimator if test else None,
        "unexplained": result.unexplained.model_dump(),
        "seconds": seconds,
    }


def acted(target: Wanted) -> dict[str, float]:
    """The coefficients that act: mergekit's linear divides by the sum of the weights, its task arithmetic rounds them to the merge's dtype."""
    if target.producer == "mergekit linear":
        return {name: weight / max(2.0, sum(target.weights.values())) for name, weight in target.weights.items()}
    if target.producer == "mergekit task_arithmetic":
        return {name: float(torch.tensor(weight).to(DTYPES[target.dtype])) for name, weight in target.weights.items()}
    return dict(target.weights)


def _names() -> list[str]:
    return [f"atom{place}" for place in range(KNOWN)]


def _write_base(folder: Path, target: Wanted) -> None:
    torch.manual_seed(target.seed)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=320, max_position_embeddings=64, initializer_range=0.03, tie_word_embeddings=False, **SIZES))
    model.to(DTYPES[target.dtype]).save_pretrained(folder)


def _write_adapter(base: Path, folder: Path, target: Wanted, seed: int, steps: float) -> None:
    """PEFT's file of an adapter whose change has a root mean square of so many steps; a third of it is shared by all adapters."""
    torch.manual_seed(seed)
    config = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "down_proj"], task_type="CAUSAL_LM")
    model = get_peft_model(LlamaForCausalLM.from_pretrained(base, dtype=torch.float32), config)
    step = 0.02 * 2.0 ** (-11 if target.dtype == "float16" else -8)
    size = (steps * step / (ALPHA / RANK) / RANK**0.5) ** 0.5
    for place, (name, values) in enumerate(sorted(model.named_parameters())):
        if "lora_" in name:
            shared = torch.randn(values.shape, generator=torch.Generator().manual_seed(1000 * target.seed + place))
            values.data = size * (0.9 * torch.randn(values.shape) + 0.43 * shared)
    model.to(DTYPES[target.adapters]).save_pretrained(folder)


def _unchanged(base: Path, made: Path) -> float:
    before, after = load_file(base / "model.safetensors"), load_file(made / "model.safetensors")
    changed = [name for name in before if name.endswith(("q_proj.weight", "down_proj.weight"))]
    return float(torch.cat([(after[name].float() == before[name].float()).flatten() for name in changed]).double().mean())


def _loaded(base: Path, folders: Sequence[Path], dtype: torch.dtype | str = "auto", **settings: Any) -> PeftModel:
    """Base and adapters as PEFT loads them, each at its own name."""
    first, *others = folders
    model = PeftModel.from_pretrained(LlamaForCausalLM.from_pretrained(base, dtype=dtype), first, adapter_name=first.name, **settings)
    for other in others:
        model.load_adapter(other, adapter_name=other.name, **settings)
    return model


def _weigh(model: PeftModel, weights: Mapping[Path, float]) -> None:
    for module in model.modules():
        if hasattr(module, "set_scale"):
            for folder, weight in weights.items():
                module.set_scale(folder.name, weight)


def by_peft(*, safe: bool = False, autocast: bool = True, load: str | None = None, save: str | None = None) -> Callable[..., None]:
    """merge_and_unload of all adapters, one after the other."""

    def make(base: Path, weights: Mapping[Path, float], out: Path) -> None:
        model = _loaded(base, list(weights), DTYPES[load] if load else "auto", autocast_adapter_dtype=autocast)
        _weigh(model, weights)
        merged = model.merge_and_unload(safe_merge=safe, adapter_names=[folder.name for folder in weights])
        (merged.to(DTYPES[save]) if save else merged).save_pretrained(out)

    return make


def combined_by_peft(kind: str, *, safe: bool = False) -> Callable[..., None]:
    """add_weighted_adapter, then merge_and_unload of the combination."""

    def make(base: Path, weights: Mapping[Path, float], out: Path) -> None:
        model = _loaded(base, list(weights))
        model.add_weighted_adapter([folder.name for folder in weights], list(weights.values()), "all", combination_type=kind)
        model.set_adapter("all")
        model.merge_and_unload(safe_merge=safe, adapter_names=["all"]).save_pretrained(out)

    return make


def in_sequence(base: Path, weights: Mapping[Path, float], out: Path) -> None:
    """Each adapter merged into what the merge before saved."""
    for place, (folder, weight) in enumerate(weights.items()):
        here = out.parent / f"step{place}"
        by_peft()(base, {folder: weight}, here)
        base = here
    shutil.copytree(base, out)


def by_hand(arithmetic: str, store: str | None = None) -> Callable[..., None]:
    """A script over the state dict: the sum in float32, or all of it in the base's dtype."""

    def make(base: Path, weights: Mapping[Path, float], out: Path) -> None:
        tensors = load_file(base / "model.safetensors")
        for name, values in tensors.items():
            parts = [(part, weight) for folder, weight in weights.items() if (part := _product(folder, name)) is not None]
            if not parts:
                continue
            if arithmetic == "float32":
                tensors[name] = (values.float() + sum((weight * part for part, weight in parts), torch.zeros(values.shape))).to(values.dtype)
            else:
                total = torch.zeros_like(values)
                for part, weight in parts:
                    total = total + weight * part.to(values.dtype)
                tensors[name] = values + total
        if store:
            tensors = {name: values.to(DTYPES[store]) for name, values in tensors.items()}
        out.mkdir()
        shutil.copy(base / "config.json", out)
        save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})

    return make


def _product(folder: Path, tensor: str) -> Tensor | None:
    factors, stem = load_file(folder / "adapter_model.safetensors"), "base_model.model." + tensor.removesuffix(".weight")
    if f"{stem}.lora_A.weight" not in factors:
        return None
    return ALPHA / RANK * factors[f"{stem}.lora_B.weight"].float() @ factors[f"{stem}.lora_A.weight"].float()


def by_mergekit(method: str) -> Callable[..., None]:
    """mergekit, in the base's dtype."""

    def make(base: Path, weights: Mapping[Path, float], out: Path) -> None:
        dtype = next(iter(load_file(base / "model.safetensors").values())).dtype
        models = [{"model": f"{base}+{folder}", "parameters": {"weight": weight}} for folder, weight in weights.items()]
        recipe: dict[str, Any] = {"merge_method": method, "dtype": str(dtype).removeprefix("torch."), "models": models}
        if method == "linear":  # the base takes what is left to 2, so that every adapter acts with half of its weight
            if (left := 2 - sum(weights.values())) > 0:
                models.append({"model": str(base), "parameters": {"weight": left}})
        else:
            recipe["base_model"] = str(base)
        file = out.parent / "recipe.yml"
        file.write_text(yaml.safe_dump(recipe))
        merge(file, out, 0)

    return make


SEQUENCE, TOGETHER = "one after another", "together"
PRODUCERS: dict[str, Producer] = {
    "merge_and_unload": Producer(by_peft(), TOGETHER, SEQUENCE),
    "safe_merge": Producer(by_peft(safe=True), f"{TOGETHER}, sum rounded", f"{SEQUENCE}, products rounded", in_float32=SEQUENCE),
    "adapters in 16 bits": Producer(by_peft(autocast=False), f"{TOGETHER}, sum rounded", f"{SEQUENCE}, products rounded", in_float32=SEQUENCE),
    "add_weighted_adapter cat": Producer(combined_by_peft("cat"), f"{TOGETHER}, sum rounded", f"{TOGETHER}, sum rounded", in_float32=TOGETHER),
    "add_weighted_adapter linear": Producer(combined_by_peft("linear"), TOGETHER, TOGETHER, most=1),
    "saved one after the other": Producer(in_sequence, TOGETHER, SEQUENCE),
    "float32, saved in 16 bits": Producer(by_peft(load="float32", save="bfloat16"), TOGETHER, TOGETHER, ("bfloat16", "float32")),
    "float32 base loaded in 16 bits": Producer(
        by_peft(load="bfloat16"), f"base rounded first, {TOGETHER}", f"base rounded first, {SEQUENCE}", ("float32",)
    ),
    "by hand in float32": Producer(by_hand("float32"), TOGETHER, TOGETHER),
    "by hand in 16 bits": Producer(by_hand("16 bits"), f"{TOGETHER}, sum rounded", f"{TOGETHER}, products rounded", ("bfloat16", "float16")),
    "bfloat16 stored as float32": Producer(by_hand("float32", "float32"), TOGETHER, TOGETHER, ("bfloat16",)),
    "mergekit task_arithmetic": Producer(
        by_mergekit("task_arithmetic"),
        f"atoms rounded first, {TOGETHER}, products rounded",
        f"atoms rounded first, {TOGETHER}, products rounded",
        in_float32=f"atoms rounded first, {TOGETHER}",
    ),
    "mergekit linear": Producer(by_mergekit("linear"), f"atoms rounded first, {TOGETHER}", f"atoms rounded first, {TOGETHER}"),
}


def _show(found: Mapping[str, Any]) -> None:
    target, rest = found["target"], found["unexplained"]
    print(f"{target['producer']}, {target['dtype']}/{target['adapters']}, {target['steps']:g} steps, unchanged {found['unchanged']:.0%}", end="")
    print(f", {found['seconds']:.0f} s\n  {found['estimator']}; {found['order']} (is {found['wanted order']}), ties {found['ties']}", end="")
    print(f", identical {found['identical']} {found['sequence']}\n  left {rest['share']:.2%}, rounding {rest['rounding_share']}, rank {rest['rank']}")
    for name in sorted({*found["acted"], *found["components"]}):
        print(f"  {name}: {found['acted'].get(name, 0)} {found['components'].get(name)}")


if __name__ == "__main__":
    main()
