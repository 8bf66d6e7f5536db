"""The commands as a user types them: what they print, what they write, where they stop."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import Result
from safetensors.torch import load_file

from unmerge.cli import app
from unmerge.core.examples import write_examples
from unmerge.training import AdapterRecord
from unmerge_lab.zoo import TASKS

Run = Callable[..., Result]
COMMANDS = {
    "demo": ["--out"],
    "decompose": ["target", "--base", "--dictionary", "--method", "--json"],
    "ablate": ["target", "--base", "--dictionary", "--remove", "--out", "--as-adapter", "--method"],
    "verify": ["target", "--base", "--dictionary", "--tasks", "--remove", "--json", "--method", "--harness", "--limit"],
    "audit": ["target", "--base", "--dictionary", "--tasks", "--out", "--fail-on", "--record"],
    "train": ["recipe", "--out"],
    "merge": ["recipe", "--out", "--seed"],
    "zoo": ["--out", "--seed", "--rebuild"],
}


def test_help_names_every_command(run: Run) -> None:
    result = run("--help")
    assert result.exit_code == 0
    assert {command.callback.__name__ for command in app.registered_commands if command.callback} >= COMMANDS.keys()
    for command in COMMANDS:
        assert f"  {command} " in result.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command(command: str, run: Run) -> None:
    """The names are a contract."""
    result = run(command, "--help")
    assert result.exit_code == 0
    assert result.stderr == ""
    for word in COMMANDS[command]:
        assert word in result.stdout


def test_decompose(run: Run, room: Path, names: list[str]) -> None:
    out = room / "records" / "bill.json"
    result = run("decompose", room / "target", "--base", room / "zoo-base", "--dictionary", room / "dictionary", "--json", out, "--method", "nnls")
    assert (result.exit_code, result.stderr) == (0, "")
    raw = json.loads(out.read_text())
    assert raw["schema"] == "unmerge/decomposition/1"
    found = {component["name"]: component["coefficient"] for component in raw["components"]}
    assert found == pytest.approx({names[0]: 1.0, names[1]: 0.5}, abs=0.01)
    for name, coefficient in found.items():
        assert name in result.stdout
        assert f"{coefficient:.4f}" in result.stdout
    assert names[2] not in result.stdout
    assert "1 atoms not named" in result.stdout


def test_decompose_adapters_without_a_base(run: Run, room: Path, names: list[str]) -> None:
    result = run("decompose", room / "dictionary" / names[0], "--dictionary", room / "dictionary", "--method", "omp")
    assert (result.exit_code, result.stderr) == (0, "")
    assert f"{names[0]}" in result.stdout
    assert "1.0000" in result.stdout


def test_dictionary_may_be_given_again(run: Run, room: Path, names: list[str]) -> None:
    """Folders of atoms, or an atom itself."""
    one, two = (room / "dictionary" / name for name in names[:2])
    result = run("decompose", room / "target", "--base", room / "zoo-base", "--dictionary", one, "--dictionary", two, "--method", "nnls")
    assert (result.exit_code, result.stderr) == (0, "")
    assert "0 atoms not named" in result.stdout


def test_warnings_are_lines_on_stderr(run: Run, room: Path) -> None:
    (room / "dictionary" / "notes").mkdir()
    result = run("decompose", room / "target", "--base", room / "zoo-base", "--dictionary", room / "dictionary")
    assert result.exit_code == 0
    assert "by certificate" in result.stdout
    assert "relatives at a cosine of .25 were assumed" in result.stdout
    assert result.stderr == f"unmerge: warning: {room / 'dictionary' / 'notes'} is neither an adapter nor a checkpoint and was ignored\n"


def test_ablate(run: Run, room: Path, names: list[str]) -> None:
    arguments = ("ablate", room / "target", "--base", room / "zoo-base", "--dictionary", room / "dictionary", "--remove")
    found = run(*arguments, names[0], "--out", room / "out")
    assert (found.exit_code, found.stderr) == (0, "")
    assert found.stdout.startswith(f"{room / 'out'}: target - ")
    assert found.stdout.endswith(f" x {names[0]}\n")
    record = json.loads((room / "out" / "ablation.json").read_text())
    assert record["removed"][names[0]] == pytest.approx(1.0, abs=0.01)
    given = run(*arguments, f"{names[0]}=0.25", "--remove", f"{names[1]}=-1", "--out", room / "given", "--as-adapter")
    assert given.stdout.splitlines() == [f"{room / 'given'}: target - 0.2500 x {names[0]}", f"{room / 'given'}: target - -1.0000 x {names[1]}"]
    assert (room / "given" / "adapter_config.json").exists()


def test_merge(run: Run, room: Path, names: list[str]) -> None:
    """Without a word on stderr, though mergekit and transformers have some."""
    models = [{"model": f"dictionary/{name}", "parameters": {"weight": weight}} for name, weight in zip(names[:2], (1.0, 0.5), strict=True)]
    recipe = {"merge_method": "task_arithmetic", "base_model": "zoo-base", "dtype": "bfloat16", "models": models}
    (room / "merge.yml").write_text(yaml.safe_dump(recipe))
    result = run("merge", room / "merge.yml", "--out", room / "merged", "--seed", "7")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == f"{room / 'merged'}: task_arithmetic of 3 inputs, seed 7\n"
    ours, before = (load_file(room / folder / "model.safetensors") for folder in ("merged", "target"))
    assert all(ours[name].equal(before[name]) for name in before)
    assert json.loads((room / "merged" / "merge.json").read_text())["seed"] == 7


def test_train(run: Run, room: Path) -> None:
    items = TASKS[0].held_out(8)
    write_examples(room / "train.jsonl", items[:4])
    write_examples(room / "held_out.jsonl", items[4:])
    recipe: dict[str, Any] = {
        "base": "zoo-base",
        "lora": {"rank": 2, "alpha": 2},
        "training": {"epochs": 1, "batch_size": 2},
        "adapters": {"lists": {"train": "train.jsonl", "held_out": "held_out.jsonl"}},
    }
    (room / "train.yml").write_text(yaml.safe_dump(recipe))
    result = run("train", room / "train.yml", "--out", room / "adapters")
    assert (result.exit_code, result.stderr) == (0, "")
    record = AdapterRecord.read(room / "adapters" / "lists")
    assert "lists" in result.stdout
    assert f"{record.held_out_exact_match:.3f}" in result.stdout


def test_zoo(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unmerge_lab.zoo.embedded.EXAMPLES", 8)  # the whole takes seconds; tests/lab/zoo writes it
    result = run("zoo", "--out", tmp_path / "zoo")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == f"{tmp_path / 'zoo'}: base, known and unknown adapters, tasks, train.yml\n"
    assert {path.name for path in (tmp_path / "zoo").iterdir()} == {"zoo-base", "known", "unknown", "tasks"}
