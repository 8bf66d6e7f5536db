"""The folder of tasks that a recipe leaves for verify."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from unmerge.core.errors import BadInput
from unmerge.core.examples import Example, read_examples
from unmerge.evaluation.checks import Exact, LmEval, Markers
from unmerge.evaluation.task_files import read_check
from unmerge.training import TrainingRecipe
from unmerge.training.recipe import AdapterEntry
from unmerge.training.tasks import write_tasks


def test_what_is_written(tmp_path: Path) -> None:
    """Items and check of each task, tasks of the harness by name, general ones apart; what others put there is left alone."""
    data = Path("train.jsonl")
    entries = {
        "styled": AdapterEntry(train=data, metric=Markers(wanted=["arr"])),
        "plain": AdapterEntry(train=data),
        "harnessed": AdapterEntry(train=data, metric=LmEval(task="gsm8k")),
        "nothing": AdapterEntry(train=data),
    }
    recipe = TrainingRecipe(base=Path("base"), general=["hellaswag"], adapters=entries)
    items = [Example("p", "c", {"tests": ["assert True"]})]
    (tmp_path / "mine.txt").write_text("")
    write_tasks(tmp_path, recipe, {"styled": items, "plain": items, "harnessed": [], "nothing": []})
    listed = yaml.safe_load((tmp_path / "tasks.yml").read_text())
    assert listed == {"styled": ["styled"], "plain": ["plain"], "harnessed": ["gsm8k"], "general": ["hellaswag"]}
    files = {"mine.txt", "tasks.yml", "styled.held_out.jsonl", "styled.check.yml", "plain.held_out.jsonl"}
    assert {path.name for path in tmp_path.iterdir()} == files
    assert read_examples(tmp_path / "plain.held_out.jsonl") == items
    assert read_check(tmp_path / "styled.check.yml") == Markers(wanted=["arr"])


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("kind: [", "expected a check in YAML, found broken YAML"),
        ("kind: guess", "expected a valid check, found Input tag 'guess'"),
        ("{kind: markers}", "expected a valid markers.wanted, found Field required"),
        ("{kind: exact, take: '('}", "expected a valid exact.take, found Value error, '(' is no regular expression"),
        ("{kind: tests, program: x, limits: {cores: 4}}", "expected a valid tests.limits.cores, found Extra inputs"),
    ],
)
def test_bad_checks(text: str, found: str, tmp_path: Path) -> None:
    file = tmp_path / "x.check.yml"
    file.write_text(text)
    with pytest.raises(BadInput) as caught:
        read_check(file)
    assert str(caught.value).startswith(f"{file}: {found}")


def test_check_round_trip(tmp_path: Path) -> None:
    check = Exact(form="number", take=r"= (\d+)", tokens=7)
    (tmp_path / "x.yml").write_text(yaml.safe_dump(check.model_dump(mode="json")))
    assert read_check(tmp_path / "x.yml") == check
