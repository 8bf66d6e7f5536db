"""Bad input through the command line: exit status 2 and one line that says what was expected, found, where, and what to try."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from click.testing import Result
from safetensors.torch import load_file, save_file

from unmerge.core.examples import write_examples
from unmerge_lab.zoo import TASKS

Run = Callable[..., Result]
Refused = Callable[..., str]
SmallDisk = Callable[[int], AbstractContextManager[None]]

TENSOR = "base_model.model.model.layers.0.mlp.up_proj.lora_A.weight"
PROJECTION = "model.layers.0.mlp.up_proj.weight"


@dataclass(frozen=True)
class Case:
    """What is damaged in a room (``atom`` and ``other`` are two adapters of its dictionary), and what is said. ROOM, ATOM: folders."""

    damage: Callable[[Path, Path], object]
    said: str
    whole: bool = True


def edited(file: Path, **settings: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1000])


def changed(file: Path, tensor: str, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    tensors = load_file(file)
    save_file(tensors | {tensor: change(tensors[tensor])}, file)


def with_value(value: float) -> Callable[[torch.Tensor], torch.Tensor]:
    def change(tensor: torch.Tensor) -> torch.Tensor:
        changed = tensor.clone()
        changed[1, 2] = value
        return changed

    return change


def pickled(folder: Path, stem: str, name: str) -> None:
    torch.save({"a.weight": torch.ones(2)}, folder / name)
    (folder / f"{stem}.safetensors").unlink()


FINITE = "expected finite weights, found NaN or infinity; write or download the file again"
CASES: dict[str, Case] = {
    "no such target": Case(lambda room, _: shutil.rmtree(room / "target"), "ROOM/target: expected a folder, found no such folder; check the path"),
    "no such base": Case(lambda room, _: shutil.rmtree(room / "zoo-base"), "ROOM/zoo-base: expected a folder, found no such folder; check the path"),
    "no such dictionary": Case(
        lambda room, _: shutil.rmtree(room / "dictionary"), "ROOM/dictionary: expected a folder, found no such folder; check the path"
    ),
    "target is a file": Case(
        lambda room, _: (shutil.rmtree(room / "target"), (room / "target").write_text("")),
        "ROOM/target: expected a folder, found a file; check the path",
    ),
    "target is neither adapter nor checkpoint": Case(
        lambda room, _: (room / "target" / "config.json").unlink(),
        "ROOM/target: expected an adapter (adapter_config.json) or a checkpoint (config.json), found model.safetensors without config.json; "
        "put it there",
    ),
    "not an adapter": Case(
        lambda _, atom: (atom / "adapter_config.json").write_text("{}"),
        "ATOM/adapter_config.json: expected a PEFT configuration with peft_type, found none; save the adapter with PEFT again",
    ),
    "adapter for another base": Case(
        lambda _, atom: changed(atom / "adapter_model.safetensors", TENSOR, lambda a: torch.cat([a, a], dim=1)),
        f"ATOM, tensor {PROJECTION}: expected a tensor of shape (256, 128) as in the base, found shape (256, 256); "
        "this adapter is for another base (unmerge/zoo-base); give that one with --base",
    ),
    "checkpoint of another base": Case(
        lambda room, _: changed(room / "target" / "model.safetensors", PROJECTION, lambda w: w[:, :100].contiguous()),
        f"ROOM/target, tensor {PROJECTION}: expected the base's shape (256, 128), found (256, 100); "
        "give the base that the checkpoint was made from with --base",
    ),
    "missing weights": Case(
        lambda _, atom: (atom / "adapter_model.safetensors").unlink(),
        "ATOM: expected weights in adapter_model.safetensors or adapter_model.safetensors.index.json, found neither file; "
        "check the path, or download the weights again",
    ),
    "truncated target": Case(
        lambda room, _: cut(room / "target" / "model.safetensors"),
        "ROOM/target/model.safetensors: expected a whole safetensors file, found a truncated or corrupt one (*); download or write it again",
    ),
    "corrupt adapter": Case(
        lambda _, atom: (atom / "adapter_model.safetensors").write_bytes(b"\xff" * 5000),
        "ATOM/adapter_model.safetensors: expected a whole safetensors file, found a truncated or corrupt one (*); download or write it again",
    ),
    "NaN in the target": Case(
        lambda room, _: changed(room / "target" / "model.safetensors", PROJECTION, with_value(float("nan"))),
        f"ROOM/target/model.safetensors, tensor {PROJECTION}: {FINITE}",
    ),
    "infinity in an adapter": Case(
        lambda _, atom: changed(atom / "adapter_model.safetensors", TENSOR, with_value(float("inf"))),
        f"ATOM/adapter_model.safetensors, tensor {TENSOR}: {FINITE}",
    ),
    "broken JSON of an adapter": Case(
        lambda _, atom: (atom / "adapter_config.json").write_text('{"peft_type": '),
        "ATOM/adapter_config.json: expected a PEFT adapter's configuration, found broken JSON (*); download or write the file again",
    ),
    "broken JSON of the target": Case(
        lambda room, _: (room / "target" / "config.json").write_text("{"),
        "ROOM/target/config.json: expected a model's config.json, found broken JSON (*); download or write the file again",
    ),
    "empty dictionary": Case(
        lambda room, _: (shutil.rmtree(room / "dictionary"), (room / "dictionary").mkdir()),
        "ROOM/dictionary: expected adapters, each in its own folder, found none; give the folder that holds them",
    ),
    "a target equal to its base": Case(
        lambda room, _: shutil.copy(room / "zoo-base" / "model.safetensors", room / "target"),
        "ROOM/target: expected a target that differs from its base, found a task vector of zero; check that target and base are not the same model",
    ),
    "an adapter that multiplies": Case(
        lambda _, atom: edited(atom / "adapter_config.json", peft_type="IA3"),
        "ATOM/adapter_config.json: expected an adapter that adds to the weights (LORA, LOHA, LOKR), found IA3, which multiplies the weights; "
        "merge it into its base (merge_and_unload) and give the checkpoint",
    ),
    "a quantised target": Case(
        lambda room, _: changed(room / "target" / "model.safetensors", PROJECTION, lambda w: w.to(torch.int8)),
        f"ROOM/target, tensor {PROJECTION}: expected weights as floating-point numbers, found a quantised checkpoint (I8 values); "
        "give the 16-bit checkpoint that it was quantised from",
    ),
    "a pickle as target": Case(
        lambda room, _: pickled(room / "target", "model", "pytorch_model.bin"),
        "ROOM/target: expected weights in model.safetensors, found a pickle (pytorch_model.bin), which is never loaded because loading it runs "
        "code; convert it first: AutoModelForCausalLM.from_pretrained(...).save_pretrained(...)",
    ),
    "a pickle as adapter": Case(
        lambda _, atom: pickled(atom, "adapter_model", "adapter_model.bin"),
        "ATOM: expected weights in adapter_model.safetensors, found a pickle (adapter_model.bin), which is never loaded because loading it runs "
        "code; convert it first: PeftModel.from_pretrained(base, ...).save_pretrained(...)",
    ),
}


def contents(room: Path) -> set[str]:
    return {str(path.relative_to(room)) for path in room.rglob("*")}


def matches(said: str, pattern: str) -> bool:
    """Equal, but for what a library says in brackets, a * in the pattern."""
    before, _, after = pattern.partition("*")
    return said.startswith(before) and said.endswith(after) and ("*" in pattern or said == pattern)


@pytest.mark.parametrize("command", ["decompose", "ablate"])
@pytest.mark.parametrize("name", CASES)
def test_bad_input(name: str, command: str, room: Path, names: list[str], refused: Refused) -> None:
    case, atom = CASES[name], room / "dictionary" / names[0]
    case.damage(room, atom)
    before = contents(room)
    output = ("--json", room / "out.json") if command == "decompose" else ("--remove", names[1], "--out", room / "out")
    said = refused(command, room / "target", "--base", room / "zoo-base", "--dictionary", room / "dictionary", *output)
    assert matches(said, case.said.replace("ATOM", str(atom)).replace("ROOM", str(room))), said
    assert contents(room) == before


def test_two_atoms_with_one_name(room: Path, names: list[str], refused: Refused) -> None:
    shutil.copytree(room / "dictionary" / names[1], room / "more" / names[0])
    folders = ("--dictionary", room / "dictionary", "--dictionary", room / "more")
    assert refused("decompose", room / "target", "--base", room / "zoo-base", *folders) == (
        f"{room / 'more' / names[0]}: expected a different name for every atom, found a second {names[0]}; rename one of the two folders"
    )


def test_a_checkpoint_without_a_base(room: Path, refused: Refused) -> None:
    said = refused("decompose", room / "target", "--dictionary", room / "dictionary")
    assert said == f"{room / 'target'}: expected a base to subtract from a checkpoint, found none; give the base with --base"


def test_settings(room: Path, names: list[str], refused: Refused) -> None:
    inputs = (room / "target", "--base", room / "zoo-base", "--dictionary", room / "dictionary")
    assert refused("decompose", *inputs, "--method", "magic").startswith("--method: expected one of ")
    ablate = ("ablate", *inputs, "--out", room / "out", "--method", "nnls", "--remove")
    known = ", ".join(names)
    assert refused(*ablate, "elephant") == f"the dictionary: expected one of {known}, found elephant; give the name of an atom's folder"
    assert refused(*ablate, names[0][:-1]).endswith(f"; did you mean {names[0]}?")
    assert refused(*ablate, names[2]) == (
        f"target: expected a component of the target ({names[0]}, {names[1]}), found {names[2]}; give its coefficient: --remove {names[2]}=0.5"
    )
    assert refused(*ablate, f"{names[0]}=much") == (
        f"--remove {names[0]}=much: expected a number after NAME=, found 'much'; write, for example, pirate=0.5"
    )
    assert not (room / "out").exists()


def small_recipes(room: Path, names: list[str]) -> dict[str, tuple[str | Path, ...]]:
    """A merge and a training of two steps, without their --out."""
    merge = {"merge_method": "task_arithmetic", "base_model": "zoo-base", "dtype": "bfloat16"}
    (room / "merge.yml").write_text(yaml.safe_dump(merge | {"models": [{"model": f"dictionary/{names[0]}", "parameters": {"weight": 1.0}}]}))
    write_examples(room / "data.jsonl", TASKS[0].held_out(4))
    train = {"base": "zoo-base", "lora": {"rank": 64}, "training": {"epochs": 1, "batch_size": 2}, "adapters": {"lists": {"train": "data.jsonl"}}}
    (room / "train.yml").write_text(yaml.safe_dump(train))
    inputs = (room / "target", "--base", room / "zoo-base", "--dictionary", room / "dictionary", "--remove", f"{names[0]}=1")
    return {
        "ablate": ("ablate", *inputs),
        "ablate --as-adapter": ("ablate", *inputs, "--as-adapter"),
        "merge": ("merge", room / "merge.yml"),
        "train": ("train", room / "train.yml"),
        "zoo": ("zoo",),
    }


WRITING = ["ablate", "ablate --as-adapter", "merge", "train", "zoo"]


@pytest.mark.parametrize("command", WRITING)
def test_full_disk(command: str, room: Path, names: list[str], refused: Refused, small_disk: SmallDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    """No file may grow beyond 50 kB: whoever writes, Python, safetensors, PEFT or mergekit, the line is the same and nothing stays."""
    monkeypatch.setattr("unmerge_lab.zoo.embedded.EXAMPLES", 8)
    arguments = small_recipes(room, names)[command]
    before = contents(room)
    with small_disk(50_000):
        said = refused(*arguments, "--out", room / "deep" / "out")
    assert said == f"{room / 'deep' / 'out'}: expected a place to write to, found: File too large; free some space"
    assert contents(room) == before


def test_full_disk_for_a_record(room: Path, refused: Refused, small_disk: SmallDisk) -> None:
    before = contents(room)
    with small_disk(100):
        said = refused("decompose", room / "target", "--base", room / "zoo-base", "--dictionary", room / "dictionary", "--json", room / "bill.json")
    assert said == f"{room / 'bill.json'}: expected a place to write to, found: File too large; free some space"
    assert contents(room) == before


@pytest.mark.parametrize("command", [*WRITING, "demo"])
def test_unwritable(command: str, room: Path, names: list[str], refused: Refused) -> None:
    """A file where a folder is needed, which not even root may write through."""
    arguments = (small_recipes(room, names) | {"demo": ("demo",)})[command]
    (room / "file").write_text("")
    before = contents(room)
    said = refused(*arguments, "--out", room / "file" / "out")
    assert said.endswith("expected a place to write to, found: Not a directory; choose another place with --out")
    assert said.startswith(str(room / "file" / "out"))
    assert contents(room) == before


@pytest.mark.parametrize("command", [*WRITING, "demo"])
def test_output_exists(command: str, room: Path, names: list[str], refused: Refused) -> None:
    arguments = (small_recipes(room, names) | {"demo": ("demo",)})[command]
    (room / "out").mkdir()
    (room / "out" / "mine").write_text("")
    before = contents(room)
    assert refused(*arguments, "--out", room / "out") == (
        f"{room / 'out'}: expected a place to write to, found: it exists already; remove it or choose another --out"
    )
    assert contents(room) == before


def test_bad_recipes(room: Path, refused: Refused) -> None:
    """In full in tests/recipes and tests/training; here that they come through as a line."""
    (room / "broken.yml").write_text("a: [")
    for command, what in (("train", "a training recipe"), ("merge", "a mergekit configuration")):
        said = refused(command, room / "broken.yml", "--out", room / "out")
        assert said.startswith(f"{room / 'broken.yml'}: expected {what} in YAML, found broken YAML (")
        assert refused(command, room / "none.yml", "--out", room / "out") == (
            f"{room / 'none.yml'}: expected {what}, found No such file or directory; check the path"
        )


def test_a_missing_extra(room: Path, names: list[str], refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    """Installed without mergekit: the line holds the command that brings it."""
    arguments = small_recipes(room, names)["merge"]
    monkeypatch.setattr("importlib.import_module", _without("mergekit.config"))
    before = contents(room)
    said = refused(*arguments, "--out", room / "out")
    assert said == "mergekit.config is not installed: expected the extra 'merge'; run: pip install 'unmerge[merge]'"
    assert contents(room) == before


def _without(missing: str) -> Callable[[str], Any]:
    import importlib

    real = importlib.import_module

    def load(name: str, package: str | None = None) -> Any:
        if name == missing:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, package)

    return load
