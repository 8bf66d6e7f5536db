"""lm-evaluation-harness on a folder of tasks, against exact match; and what it refuses."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

from unmerge.core.errors import BadInput, MissingExtra
from unmerge.core.examples import write_examples
from unmerge.evaluation.harness import Harness
from unmerge.evaluation.suite import Examples, Together
from unmerge_lab.zoo import held_out
from unmerge_lab.zoo.embedded import export_zoo

TASKS = ["facts", "plural"]
ITEMS = 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The zoo's tasks as the package writes them."""
    out = tmp_path_factory.mktemp("zoo") / "zoo"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("unmerge_lab.zoo.embedded.EXAMPLES", 8)
        export_zoo(out)
    # a group, and a task whose first metric is better when it is lower
    tasks = out / "tasks"
    (tasks / "both.yaml").write_text(yaml.safe_dump({"group": "both", "task": TASKS}))
    worse = yaml.safe_load((tasks / "facts.yaml").read_text()) | {"task": "worse"}
    worse["metric_list"][0]["higher_is_better"] = False
    (tasks / "worse.yaml").write_text(yaml.safe_dump(worse))
    return tasks


@pytest.fixture(scope="module")
def base(zoo: Path) -> tuple[Any, Any]:
    return AutoModelForCausalLM.from_pretrained(zoo / "zoo-base", dtype="float32"), AutoTokenizer.from_pretrained(zoo / "zoo-base")


def test_same_as_exact_match(folder: Path, base: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: Any) -> None:
    """Item by item; once more after the model has changed; nothing is printed; the data lie beside the task file, wherever one is."""
    monkeypatch.chdir(tmp_path)
    harness, examples = Harness([*TASKS, "both"], folder, ITEMS), Examples({task: held_out()[task][:ITEMS] for task in TASKS})
    model, tokenizer = base
    expected = examples.score(model, tokenizer, TASKS)
    assert {sum(scores) for scores in expected.values()} == {0.0, ITEMS}  # both answers occur
    assert harness.score(model, tokenizer, TASKS) == expected
    assert harness.score(model, tokenizer, ["both"]) == {"both": [*expected["facts"], *expected["plural"]]}
    weight = model.model.norm.weight.data
    model.model.norm.weight.data = -weight
    try:
        assert harness.score(model, tokenizer, TASKS) == examples.score(model, tokenizer, TASKS) != expected
    finally:
        model.model.norm.weight.data = weight
    assert harness.scorer("facts").endswith(", exact_match")
    assert capfd.readouterr().err == ""
    assert Path.cwd() == tmp_path


def test_beside_examples(folder: Path, base: tuple[Any, Any]) -> None:
    """A suite of both: each task is scored by its own, in the order that was asked for."""
    suite = Together([Examples({"copy": held_out()["copy"][:3]}), Harness(["facts"], folder, 3)])
    assert set(suite.tasks) == {"facts", "copy"}
    assert list(suite.score(*base, ["facts", "copy"])) == ["facts", "copy"]
    assert (suite.scorer("copy"), suite.scorer("facts").partition(" ")[0]) == ("exact match", "lm-eval")


def test_identity_follows_the_folder(folder: Path, tmp_path: Path) -> None:
    one = Harness(["facts"], folder, 3).identity("facts")
    assert Harness(["facts"], folder, 4).identity("facts") != one
    extra = folder / "note.jsonl"
    write_examples(extra, held_out()["copy"])
    assert Harness(["facts"], folder, 3).identity("facts") != one
    extra.unlink()
    assert Harness(["facts"], folder, 3).identity("facts") == one


def test_a_task_without_a_number_that_rises(folder: Path, base: tuple[Any, Any]) -> None:
    with pytest.raises(BadInput, match="the task worse: expected a metric that gives every item a number, higher for better, found exact_match"):
        Harness(["worse"], folder, 2).score(*base, ["worse"])


def test_data_that_are_not_there(folder: Path, base: tuple[Any, Any], tmp_path: Path) -> None:
    (tmp_path / "lost.yaml").write_text((folder / "facts.yaml").read_text().replace("facts", "lost"))
    with pytest.raises(BadInput, match="lost: expected tasks that lm-evaluation-harness can run here, found FileNotFoundError"):
        Harness(["lost"], tmp_path).score(*base, ["lost"])


def test_a_task_that_nobody_knows(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manager = importlib.import_module("lm_eval.tasks").TaskManager

    def local(include_path: str, **_: bool) -> Any:
        return manager(include_path=include_path, include_defaults=False)  # its own thousands of task files take half a minute

    monkeypatch.setattr("lm_eval.tasks.TaskManager", local)
    with pytest.raises(BadInput, match="found neither for nonsense; mend the name, or add the task's file"):
        Harness(["facts", "nonsense"], folder)


def test_without_the_harness(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ModuleNotFoundError(name=name)

    monkeypatch.setattr("importlib.import_module", missing)
    with pytest.raises(MissingExtra, match=r"pip install 'unmerge\[eval\]'"):
        Harness(["facts"])
