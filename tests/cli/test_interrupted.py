"""Interrupted in the middle, by Ctrl-C or by kill -9: the same command goes on, and what was finished is not done again."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from click.testing import Result
from transformers import AutoModelForCausalLM

from unmerge.core.examples import write_examples
from unmerge_lab.zoo import TASKS

Run = Callable[..., Result]

#: run a command that is killed inside its second call of a function, half a result written
KILLED = """
import importlib, os, signal, sys
from unmerge.cli import main
module, name, first = importlib.import_module(sys.argv[1]), sys.argv[2], sys.argv[3]
real, calls = getattr(module, name), []

def stand_in(*arguments, **named):
    calls.append(arguments)
    place = next(argument for argument in arguments if hasattr(argument, "write_bytes"))
    if len(calls) == 2:
        place.write_bytes(b"half a file")
        os.kill(os.getpid(), signal.SIGKILL)
    if first == "real":
        return real(*arguments, **named)
    import shutil
    shutil.copytree(first, place)

setattr(module, name, stand_in)
sys.argv = ["unmerge", *sys.argv[4:]]
main()
"""


def killed(module: str, name: str, first: str | Path, *arguments: str | Path) -> None:
    command = [sys.executable, "-c", KILLED, module, name, first, *arguments]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, timeout=300, env=os.environ)
    assert done.returncode == -signal.SIGKILL, done.stderr


def sharded(folder: Path) -> Path:
    out = folder.with_name("sharded")
    AutoModelForCausalLM.from_pretrained(folder, dtype="auto").save_pretrained(out, max_shard_size="300KB")
    return out


def test_ablate_killed(room: Path, names: list[str], run: Run) -> None:
    target = sharded(room / "target")
    arguments = ("ablate", target, "--base", room / "zoo-base", "--dictionary", room / "dictionary", "--remove", f"{names[0]}=1", "--out")
    killed("unmerge.verification.ablate", "rewrite", "real", *arguments, room / "out")
    assert not (room / "out").exists()
    (kept,) = (room / ".out.partial").glob("*.safetensors")
    inode = kept.stat().st_ino
    assert run(*arguments, room / "out").exit_code == 0
    assert (room / "out" / kept.name).stat().st_ino == inode
    assert run(*arguments, room / "at once").exit_code == 0
    files = {path.name for path in (room / "at once").iterdir()}
    assert {path.name for path in (room / "out").iterdir()} == files
    for name in files - {"ablation.json"}:
        assert (room / "out" / name).read_bytes() == (room / "at once" / name).read_bytes()
    assert not (room / ".out.partial").exists()


def test_train_killed(room: Path, names: list[str], run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first adapter is there; only the second is trained when the command is given again."""
    write_examples(room / "data.jsonl", TASKS[0].held_out(4))
    recipe = {"base": "zoo-base", "training": {"epochs": 1}, "adapters": {name: {"train": "data.jsonl"} for name in ("first", "second")}}
    (room / "train.yml").write_text(yaml.safe_dump(recipe))
    ready = room / "dictionary" / names[0]
    killed("unmerge.training.adapters", "train_adapter", ready, "train", room / "train.yml", "--out", room / "out")
    assert not (room / "out").exists()
    assert {path.name for path in (room / ".out.partial").iterdir()} == {".job.json", ".unfinished", "first"}
    trained: list[str] = []
    module = importlib.import_module("unmerge.training.adapters")
    real = module.train_adapter

    def counted(recipe: object, name: str, *rest: object) -> None:
        trained.append(name)
        real(recipe, name, *rest)

    monkeypatch.setattr(module, "train_adapter", counted)
    result = run("train", room / "train.yml", "--out", room / "out")
    assert result.exit_code == 0, result.output
    assert trained == ["second"]
    assert {path.name for path in (room / "out").iterdir()} == {"first", "second"}
    assert (room / "out" / "first" / "adapter_model.safetensors").read_bytes() == (ready / "adapter_model.safetensors").read_bytes()


def test_ctrl_c(room: Path, names: list[str], run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line that says what to do, and the exit status of an interrupted command."""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    arguments = ("ablate", room / "target", "--base", room / "zoo-base", "--dictionary", room / "dictionary", "--remove", f"{names[0]}=1")
    with monkeypatch.context() as patch:
        patch.setattr(importlib.import_module("unmerge.verification.ablate"), "rewrite", interrupted)
        result = run(*arguments, "--out", room / "out")
    assert result.exit_code == 130
    assert (result.stdout, result.stderr) == ("", "unmerge: interrupted; run the same command again to go on\n")
    assert not (room / "out").exists()
    assert not (room / ".out.partial").exists()
    assert run(*arguments, "--out", room / "out").exit_code == 0
