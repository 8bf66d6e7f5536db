"""unmerge verify as a user types it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from unmerge.core.errors import MissingExtra
from unmerge.core.examples import write_examples
from unmerge_lab.zoo import held_out

Run = Callable[..., Result]
Refused = Callable[..., str]


@pytest.fixture
def tasks(room: Path, names: list[str]) -> Path:
    """A folder of tasks: two components' skills, one that the target lacks, and a general task."""
    folder = room / "tasks"
    for task in (*names, "copy"):
        write_examples(folder / f"{task}.jsonl", held_out()[task][:10])
    (folder / "tasks.yml").write_text("".join(f"{name}: [{name}]\n" for name in names) + "general: copy\n")
    return folder


def inputs(room: Path) -> list[str | Path]:
    return ["verify", room / "target", "--base", room / "zoo-base", "--dictionary", room / "dictionary", "--method", "nnls"]


def test_verify(run: Run, room: Path, names: list[str], tasks: Path) -> None:
    out = room / "records" / "verification.json"
    asked = [*inputs(room), "--tasks", tasks, "--json", out, "--remove", names[0], "--remove", f"{names[1]}=0.001"]
    result = run(*asked)
    assert (result.exit_code, result.stderr) == (0, "")
    raw = json.loads(out.read_text())
    assert raw["schema"] == "unmerge/verification/1"
    assert {component["removed"]: component["verdict"] for component in raw["components"]} == {names[0]: "verified", names[1]: "no effect"}
    said = result.stdout
    assert said.index(f"Predicted: without {names[0]}, {names[0]} falls from 1.00 to 0.00; {names[1]} stay.") < said.index("verified")
    assert "items are needed to see a fall of 0.64 with a power of 95%" in said
    assert f"Too few: {names[0]}, {names[1]}." in said
    assert f"- {names[0]}: verified. the skill falls from 1.00 to 0.00, by 100% of its score" in said
    assert f"- {names[1]}: no effect. " in said
    assert {path.name for path in out.parent.iterdir()} == {
        "verification.json",
        "verification.items.jsonl",
        "verification.items.predicted.json",
    }
    lines = (out.parent / raw["items"]).read_text()
    assert run(*asked).exit_code == 0
    assert (out.parent / raw["items"]).read_text() == lines  # nothing was measured again


def test_refused(refused: Refused, room: Path, names: list[str], tasks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert refused(*inputs(room), "--tasks", room / "nowhere.yml") == (
        f"{room}/nowhere.yml: expected a mapping from atoms to names of tasks, found No such file or directory; check the path"
    )
    assert refused(*inputs(room), "--tasks", tasks, "--remove", names[2]).startswith("target: expected a component of the target")
    (tasks / f"{names[0]}.jsonl").write_text('{"prompt": 1\n')
    assert refused(*inputs(room), "--tasks", tasks).startswith(f'{tasks}/{names[0]}.jsonl: expected JSON lines with "prompt" and "completion"')

    def missing(module: str, extra: str) -> None:
        raise MissingExtra(module, extra)

    (tasks / f"{names[0]}.jsonl").unlink()
    monkeypatch.setattr("unmerge.evaluation.harness.need", missing)
    assert refused(*inputs(room), "--tasks", tasks) == (
        "lm_eval.evaluator is not installed: expected the extra 'eval'; run: pip install 'unmerge[eval]'"
    )
    assert not (room / "verification.json").exists()
