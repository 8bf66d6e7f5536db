"""The audit as a user runs it: a folder from a real merge, drawn again without the model, failing where it is asked to."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from click.testing import Result

from unmerge.auditing import Audit
from unmerge.auditing.schema import FILE as SCHEMA

Run = Callable[..., Result]


def arguments(room: Path, *more: str | Path) -> list[str | Path]:
    return ["audit", room / "target", "--base", room / "zoo-base", "--dictionary", room / "dictionary", *more]


def record(out: Path) -> dict[str, Any]:
    raw: dict[str, Any] = json.loads((out / "audit.json").read_text())
    return raw


def test_audit(run: Run, room: Path, names: list[str]) -> None:
    """Without tasks nothing is measured; the record follows the schema; conditions that hold give exit status 4."""
    out = room / "out"
    result = run(*arguments(room, "--out", out, "--fail-on", f"component={names[0]}", "--fail-on", f"component={names[2]}"))
    assert result.exit_code == 4, (result.output, result.exception)
    assert result.stdout.splitlines() == [
        f"target is zoo-base with two known components merged in by task_arithmetic: {names[0]} (1.00) and {names[1]} (0.50), and nothing else.",
        str(out / "index.html"),
    ]
    assert f"unmerge: component={names[0]}: it is in the target, at 1." in result.stderr or "at 0.99" in result.stderr
    assert f"component={names[2]}" not in result.stderr
    assert "unmerge: warning: target: no README.md." in result.stderr
    assert {path.name for path in out.iterdir()} == {
        *("index.html", "audit.json", "bom.cdx.json", "decomposition.json", "figures"),
        *("RECIPE.json", "RECIPE.yml"),
    }
    raw = record(out)
    jsonschema.validate(raw, json.loads(SCHEMA.read_text()))
    assert raw["decomposition"] == json.loads((out / "decomposition.json").read_text())
    assert raw["verification"] is None
    assert (raw["recipe"]["method"], raw["recipe"]["identical_share"]) == ("task_arithmetic", 1.0)
    assert yaml.safe_load((out / "RECIPE.yml").read_text()) == raw["recipe"]["configuration"]
    assert [gate["failed"] for gate in raw["gates"]] == [True, False]
    assert not [path for path in room.iterdir() if path.name.startswith(".")]
    # an audit is drawn again, in its place or another, without the model
    for folder in ("target", "zoo-base", "dictionary"):
        shutil.rmtree(room / folder)
    page = (out / "index.html").read_text()
    (out / "index.html").write_text("")
    assert run("audit", "--record", out / "audit.json", "--out", out, "--fail-on", "component=" + names[2]).exit_code == 0
    assert "passes 1 condition" in (out / "index.html").read_text()
    again = run("audit", "--record", out / "audit.json", "--out", room / "again")
    assert again.exit_code == 0
    assert (room / "again" / "index.html").read_text() == (out / "index.html").read_text() != page
    assert (room / "again" / "bom.cdx.json").read_text() == (out / "bom.cdx.json").read_text()


@pytest.fixture
def quick_recipe(monkeypatch: pytest.MonkeyPatch, audit_record: Audit) -> None:
    """A recipe that takes no time; another test has a real one."""
    monkeypatch.setattr("unmerge.auditing.run.recovered", lambda *_: audit_record.recipe)


@pytest.mark.usefixtures("quick_recipe")
def test_audit_with_tasks(run: Run, room: Path, names: list[str]) -> None:
    """A verification is made where a component has tasks, and is in the page and the record."""
    from unmerge.core.examples import write_examples
    from unmerge_lab.zoo import held_out

    tasks = room / "tasks"
    for task, examples in held_out(8).items():
        if task in (*names, "copy"):
            write_examples(tasks / f"{task}.jsonl", examples)
    (tasks / "tasks.yml").write_text(yaml.safe_dump({**{name: [name] for name in names}, "general": ["copy"]}))
    out = room / "out"
    result = run(*arguments(room, "--out", out, "--tasks", tasks))
    assert result.exit_code == 0, (result.output, result.exception)
    raw = record(out)
    jsonschema.validate(raw, json.loads(SCHEMA.read_text()))
    assert [measured["removed"] for measured in raw["verification"]["components"]] == names[:2]
    assert raw["verification"] == json.loads((out / "verification.json").read_text())
    assert (out / "verification.items.jsonl").exists()
    assert {path.name for path in (out / "figures").iterdir()} >= {"matrix.svg", *(f"doses-{name}.svg" for name in names[:2])}
    assert 'id="verification"' in (out / "index.html").read_text()


@pytest.mark.usefixtures("quick_recipe")
def test_an_interrupted_audit_goes_on(run: Run, room: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from unmerge.report import audit as report

    def full(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(report, "write_audit", full)
        assert run(*arguments(room, "--out", room / "out")).exit_code == 130
    assert not (room / "out").exists()
    for name in ("decompose", "recovered"):
        monkeypatch.setattr(f"unmerge.auditing.run.{name}", lambda *_, name=name, **__: pytest.fail(f"{name} ran again"))
    assert run(*arguments(room, "--out", room / "out")).exit_code == 0
    assert (room / "out" / "index.html").exists()


def test_an_adapter_without_its_base(run: Run, room: Path, names: list[str]) -> None:
    """Among plain LoRA adapters no base is needed, as the help says: components and licences all the same."""
    out = room / "out"
    done = run("audit", room / "dictionary" / names[0], "--dictionary", room / "dictionary", "--out", out, "--fail-on", f"component={names[0]}")
    assert done.exit_code == 4, done.output
    assert f"{names[0]} is an adapter to unmerge/zoo-base with one known component merged in: {names[0]} (1.00), and nothing else." in done.stdout
    found = record(out)
    assert (found["base_name"], found["decomposition"]["base"], found["recipe"], found["verification"]) == ("unmerge/zoo-base", None, None, None)
    assert {licence["of"]: licence["trouble"] for licence in found["licences"]["licences"] if licence["role"] == "base"} == {
        "unmerge/zoo-base": "the base was not given, so that its card was not read"
    }
    jsonschema.validate(found, json.loads(SCHEMA.read_text()))
    ancestors = json.loads((out / "bom.cdx.json").read_text())["metadata"]["component"]["pedigree"]["ancestors"]
    assert [(ancestor["name"], "hashes" in ancestor) for ancestor in ancestors] == [("unmerge/zoo-base", False), (names[0], True)]


def test_bad_input(refused: Callable[..., str], room: Path, tmp_path: Path, names: list[str]) -> None:
    assert refused("audit", "--out", tmp_path / "out") == ("audit: expected a target, found none; name it, or draw an audit again with --record")
    bare = ("audit", room / "target", "--dictionary", room / "dictionary", "--out", tmp_path / "out")
    assert "expected a base to subtract from a checkpoint, found none; give the base with --base" in refused(*bare)
    assert "--tasks: expected a base to measure on, found none; give it with --base, or leave --tasks out" in refused(*bare, "--tasks", "zoo")
    assert "--fail-on: expected one of unknown-share=X" in refused(*arguments(room, "--out", tmp_path / "out", "--fail-on", "anything"))
    other = room / "other.json"
    assert f"{other}: expected an audit's record, found no such file; check the path" == refused(
        "audit", "--record", other, "--out", tmp_path / "out"
    )
    other.write_text('{"schema": "unmerge/decomposition/1"}')
    assert "expected a record of the schema unmerge/audit/1, found unmerge/decomposition/1" in refused(
        "audit", "--record", other, "--out", tmp_path / "out"
    )
    assert (
        refused("audit", room / "target", "--record", other, "--out", tmp_path / "out")
        == "--record: expected a record alone, found a target; leave one of the two out"
    )
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("")
    assert "it exists already; remove it or choose another --out" in refused(*arguments(room, "--out", tmp_path / "full"))
    assert not (tmp_path / "out").exists()


def test_a_missing_extra_is_said_before_the_work(refused: Callable[..., str], room: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "cyclonedx", None)
    message = refused(*arguments(room, "--out", room / "out"))
    assert message == "cyclonedx is not installed: expected the extra 'audit'; run: pip install 'unmerge[audit]'"
