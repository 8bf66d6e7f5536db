"""The demo from end to end: only the live training is replaced, by an adapter of the zoo; all else is real."""

from __future__ import annotations

import importlib
import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from unmerge.auditing import read_audit
from unmerge.checkpoints import Checkpoint
from unmerge.cli import app
from unmerge.core.errors import BadOutput
from unmerge.verification.matrix import FALL, GONE, MEASURABLE
from unmerge_lab.studies import DemoResult, run_demo
from unmerge_lab.studies.demo import STRANGERS, TRAINED, WEIGHTS
from unmerge_lab.zoo import GENERAL, TASKS

demo = importlib.import_module("unmerge_lab.studies.demo")


def unwatched(_: str) -> Any:
    return lambda items: items


@pytest.fixture(scope="module")
def trained(zoo: Path) -> Path:
    """The zoo's own adapter for the task that the demo trains."""
    return next(zoo.glob(f"*/{TRAINED}"))


@pytest.fixture(scope="module")
def out(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished demo."""
    out = tmp_path_factory.mktemp("demo") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "train_adapter", lambda _recipe, _name, folder, _watch: shutil.copytree(trained, folder))
        patch.setattr(demo, "AUDIT_ITEMS", 4)
        patch.setenv("COLUMNS", "300")
        done = CliRunner().invoke(app, ["demo", "--out", str(out)])
    assert done.exit_code == 0, (done.output, done.exception)
    (out.parent / "stdout").write_text(done.stdout)
    (out.parent / "stderr").write_text(done.stderr)
    return out


@pytest.fixture(scope="module")
def result(out: Path) -> DemoResult:
    return DemoResult.model_validate_json((out / "demo.json").read_text())


def test_its_components_are_in_the_zoo(zoo: Path) -> None:
    """A rebuilt zoo may sort its adapters otherwise: those that the demo takes must be among the known ones."""
    assert WEIGHTS.keys() - {TRAINED} <= {path.name for path in (zoo / "known").iterdir()}
    assert TRAINED in {task.name for task in TASKS}


def test_recipe_is_found_again(result: DemoResult) -> None:
    """The three known components with their weights, nothing else, no warning; and that there are two that nobody knows."""
    found = {component.name: component.coefficient for component in result.decomposition.components}
    assert result.decomposition.method == "certificate"
    assert found == pytest.approx(WEIGHTS, rel=0.02)
    assert result.decomposition.unexplained.components == len(STRANGERS)
    assert len(set(WEIGHTS.values())) == len(WEIGHTS) == 3
    assert result.decomposition.warnings == []
    assert result.trained.task == TRAINED


def test_each_subtraction_takes_one_skill(result: DemoResult) -> None:
    """What the demo promises, by its definition rather than by the record's own verdict."""
    before, *rows = result.matrix.rows
    assert before.removed is None
    assert {row.removed for row in rows} == WEIGHTS.keys()
    assert list(before.scores) == [task.name for task in (*TASKS, *GENERAL)]
    for name in WEIGHTS:
        assert before.scores[result.matrix.task_of[name]] >= MEASURABLE == 0.8
    for row in rows:
        own = result.matrix.task_of[row.removed or ""]
        assert row.scores[own] <= GONE == 0.10
        falls = {task: before.scores[task] - row.scores[task] for task in before.scores if task != own and before.scores[task] >= MEASURABLE}
        assert max(falls.values()) <= FALL == 0.10, falls
        assert result.matrix.specific(row)
        assert row.coefficient == pytest.approx(WEIGHTS[row.removed or ""], rel=0.02)


def test_what_is_left_on_disk(out: Path, result: DemoResult) -> None:
    assert {path.name for path in out.iterdir()} == {
        *("ablated", "audit", "data", "dictionary", "target"),
        *("decomposition.json", "demo.json", "job.json", "matrix.json", "seconds.json"),
        *("merge.yml", "matrix.png", "matrix.svg"),
    }
    raw = json.loads((out / "demo.json").read_text())
    assert raw["decomposition"] == json.loads((out / "decomposition.json").read_text())
    assert raw["decomposition"]["schema"] == "unmerge/decomposition/1"
    assert raw["matrix"] == json.loads((out / "matrix.json").read_text())
    for name in WEIGHTS:
        assert Checkpoint.open(out / "ablated" / name).files.dtype("model.embed_tokens.weight") == "BF16"
        assert list(json.loads((out / "ablated" / name / "ablation.json").read_text())["removed"]) == [name]
    assert result.seconds.keys() == {"train", "merge", "decompose", "ablate", "evaluate", "audit"}


def test_what_is_printed(out: Path, result: DemoResult) -> None:
    text = (out.parent / "stdout").read_text()
    assert (out.parent / "stderr").read_text() == ""
    for name in WEIGHTS:
        assert f" x {name}: " in text
    assert text.count("gone, the others stay") == len(WEIGHTS)
    assert all(task in text for task in result.matrix.tasks)
    assert f"Records: {out}/*.json   Figure: {out}/matrix.png, {out}/matrix.svg" in text
    assert f"The audit, a page for the browser: {out}/audit/index.html" in text


def test_it_ends_with_an_audit(out: Path, result: DemoResult) -> None:
    """Of the same decomposition, with every known component removed again and measured."""
    audit = read_audit(out / "audit" / "audit.json")
    assert audit.decomposition == result.decomposition
    assert audit.verification is not None
    assert {measured.removed for measured in audit.verification.components} == WEIGHTS.keys()
    assert all(measured.after <= GONE for measured in audit.verification.components)
    assert "and at least two that are unknown" in (out / "audit" / "index.html").read_text()


def test_second_run_computes_nothing(out: Path, result: DemoResult, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    for name in ("train_adapter", "write_task", "merge", "decompose", "ablate", "run_audit", "load_model", "exact_match"):
        monkeypatch.setattr(demo, name, lambda *_, name=name, **__: pytest.fail(f"{name} ran again"))
    again = run_demo(out, lambda _: lambda *_: None, unwatched)
    assert again.model_copy(update={"environment": result.environment}) == result
    written = {path.name for path, time in before.items() if path.stat().st_mtime_ns != time}
    assert written <= {"demo.json"}


def test_interrupted_while_measuring(out: Path, tmp_path: Path, result: DemoResult, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything before it is kept; the second run only measures."""
    copy = shutil.copytree(out, tmp_path / "out")
    (copy / "matrix.json").unlink()
    shutil.rmtree(copy / "ablated" / TRAINED)

    def interrupting(title: str) -> Any:
        def watch(items: Iterable[str]) -> Any:
            if title == "measuring":
                raise KeyboardInterrupt
            return items

        return watch

    rows = {row.removed or "target": row.scores for row in result.matrix.rows}
    monkeypatch.setattr(demo, "_scores", lambda folder: rows[folder.name])  # measuring takes seconds; the finished demo did it
    for name in ("train_adapter", "merge", "decompose"):
        monkeypatch.setattr(demo, name, lambda *_, name=name, **__: pytest.fail(f"{name} ran again"))
    with pytest.raises(KeyboardInterrupt):
        run_demo(copy, lambda _: lambda *_: None, interrupting)
    assert (copy / "ablated" / TRAINED / "ablation.json").exists()
    assert not (copy / "matrix.json").exists()
    assert run_demo(copy, lambda _: lambda *_: None, unwatched).matrix == result.matrix


def test_a_folder_of_somebody_else(out: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("")
    with pytest.raises(BadOutput, match=r"found: it exists already; remove it or choose another --out"):
        run_demo(tmp_path, lambda _: lambda *_: None, unwatched)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "job.json").write_text('{"job": "another"}')
    with pytest.raises(BadOutput, match=r"found: another version's demo; remove it or choose another --out"):
        run_demo(copy, lambda _: lambda *_: None, unwatched)
