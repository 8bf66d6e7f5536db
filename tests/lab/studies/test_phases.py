"""The whole proposal in small, from one file: adapters trained, merged, found and verified; and what the file for 7B will take."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from unmerge.cli import app
from unmerge.core.errors import BadInput, BadOutput
from unmerge.core.examples import Example, write_examples
from unmerge.verification.record import Verification
from unmerge_lab.report.phases_record import PhasesRecord
from unmerge_lab.studies.design import StudyDesign, Zoo
from unmerge_lab.studies.phases import Watches, halves, plan_phases, read_recipe, run_phases, verified
from unmerge_lab.studies.targets import targets
from unmerge_lab.zoo import TASKS

QWEN = Path(__file__).parents[3] / "studies" / "qwen2.5-7b.yml"
NAMES = ("pirate", "json_object", "yoda")
DESIGN: dict[str, Any] = {
    "train": "train.yml",
    "known": ["pirate", "json_object"],
    "groups": ["known"],
    "components": [2],
    "weights": ["equal"],
    "merges": {"task_arithmetic": {}},
    "dtypes": ["bfloat16"],
    "seeds": [0],
    "methods": ["nnls"],
    "spaces": ["exact"],
    "verify": {"limit": 2},
}


def watches() -> Watches:
    def over(_title: str) -> Any:
        def loop(items: Iterable[str]) -> Iterable[str]:
            return items

        return loop

    return Watches(lambda _title: lambda _done, _total: None, over)


@pytest.fixture(scope="module")
def place(zoo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe of three adapters with a check each, and a study of them."""
    place = tmp_path_factory.mktemp("proposal")
    adapters = {}
    for task in TASKS:
        if task.name in NAMES:
            items = task.held_out(6)
            write_examples(place / f"{task.name}.jsonl", items)
            adapters[task.name] = {"train": f"{task.name}.jsonl", "held_out": 2, "category": task.category, "description": task.description}
    adapters["json_object"]["train"] = [{"dataset": "json_object.jsonl", "prompt": "{{ prompt }}\n", "completion": "{{ completion }}"}]
    adapters["pirate"]["metric"] = {"kind": "markers", "wanted": ["^Arr"], "tokens": 4}
    recipe = {
        "base": str(zoo / "zoo-base"),
        "lora": {"rank": 2, "target_modules": ["q_proj", "v_proj"]},
        "training": {"epochs": 1, "batch_size": 1, "warmup": 0, "learning_rate": 1e-2},
        "adapters": adapters,
    }
    (place / "train.yml").write_text(yaml.safe_dump(recipe))
    (place / "study.yml").write_text(yaml.safe_dump(DESIGN))
    return place


@pytest.fixture(scope="module")
def record(place: Path) -> PhasesRecord:
    return run_phases(StudyDesign.read(place / "study.yml"), place / "out", watches())


def test_all_phases(record: PhasesRecord, place: Path) -> None:
    assert record == PhasesRecord.model_validate_json((place / "out" / "phases.json").read_text())
    assert tuple(record.adapters) == NAMES or set(record.adapters) == set(NAMES)
    assert record.adapters["pirate"].scored_by == "at least 1 of 1 marks of the style"
    assert set(record.study.dictionary) == {"pirate", "json_object"}
    assert (record.study.targets, record.study.cells) == (1, 1)
    result = Verification.model_validate_json((place / "out" / "verify" / "known-task_arithmetic-bfloat16-0-0.json").read_text())
    assert {verdict.removed for verdict in record.verdicts} == {component.removed for component in result.components} == {"pirate", "json_object"}
    assert {task.name: task.items for task in result.tasks} == dict.fromkeys(NAMES, 2)
    assert {task.name: task.scorer for task in result.tasks}["pirate"] == "at least 1 of 1 marks of the style"
    listed = yaml.safe_load((place / "out" / "zoo" / "tasks" / "tasks.yml").read_text())
    assert listed == {name: [name] for name in NAMES}
    assert {path.name for half in ("known", "unknown") for path in (place / "out" / "zoo" / half).iterdir()} == set(NAMES)
    assert not (place / "out" / "verify" / "targets").exists()
    assert not (place / "out" / "study" / "targets").exists()


def test_a_second_run_goes_on(record: PhasesRecord, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is trained, decomposed or verified again; a target whose record is gone is."""
    monkeypatch.setattr("unmerge_lab.studies.phases.train_adapters", lambda *_: pytest.fail("trained again"))
    monkeypatch.setattr("unmerge_lab.studies.phases.make_target", lambda *_: pytest.fail("merged again"))
    again = run_phases(StudyDesign.read(place / "study.yml"), place / "out", watches())
    assert again.verdicts == record.verdicts
    assert again.study.resumed == 1
    other = yaml.safe_load((place / "train.yml").read_text())
    other["seed"] = 5
    (place / "other.yml").write_text(yaml.safe_dump(other))
    design = StudyDesign.read(place / "study.yml").model_copy(update={"train": place / "other.yml"})
    with pytest.raises(BadOutput, match="found: another study"):
        run_phases(design, place / "out", watches())


def test_command(record: PhasesRecord, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    result = CliRunner().invoke(app, ["study", str(place / "study.yml"), "--out", str(place / "out"), "--jobs", "1"])
    assert result.exit_code == 0, result.output
    for verdict in record.verdicts:
        assert verdict.verdict in result.stdout
    assert "nnls" in result.stdout
    asked = CliRunner().invoke(app, ["study", str(place / "study.yml")])
    assert (asked.exit_code, asked.stderr) == (2, "unmerge: --out: expected a folder to make, found none; name one, or give --dry-run\n")


def test_the_proposal(monkeypatch: pytest.MonkeyPatch) -> None:
    """`unmerge study studies/qwen2.5-7b.yml --dry-run`: nothing is fetched, and it says what every phase takes."""
    monkeypatch.setenv("COLUMNS", "200")
    result = CliRunner().invoke(app, ["study", str(QWEN), "--dry-run"])
    assert result.exit_code == 0, result.output
    for text in (
        "Phase 1, training",
        "fits 24 GB",
        "Phase 2, targets: 36 (12 known, 12 mixed, 12 unknown) of 13 known and 12 unknown adapters",
        "Phases 3 and 4, decompositions: 1224, 34 of each target",
        "Phase 5, verification: 4 targets",
    ):
        assert text in result.stdout
    design = StudyDesign.read(QWEN)
    plan, recipe = plan_phases(design), read_recipe(design)
    assert plan.target_gib == pytest.approx(15.23e9 / 2**30, rel=0.01)
    known, unknown = halves(design, recipe)
    assert set(known) | set(unknown) == set(recipe.adapters)
    assert abs(len(known) - len(unknown)) == 1
    chosen = [recipe.adapters[name].category for name in known]
    assert {kind: chosen.count(kind) in (2, 3) for kind in chosen} == dict.fromkeys(("code", "structure", "logic", "style", "other"), True)
    kinds = [recipe.adapters[name].category for name in halves(design.model_copy(update={"known": []}), recipe)[0]]
    assert len(kinds) == 13
    assert {kinds.count(kind) for kind in kinds} == {2, 3}
    assert design.merges.keys() == {"task_arithmetic", "ties", "dare_linear"}
    assert 30 <= sum(plan.targets.values()) <= 40  # the proposal's number


def test_verified_targets_are_spread(place: Path) -> None:
    design = StudyDesign.read(QWEN)
    known, unknown = halves(design, read_recipe(design))
    zoo = Zoo(Path(), Path(), known, unknown)
    assert design.verify is not None
    every = [target for target in targets(design, zoo) if target.group != "unknown" and target.merge == "task_arithmetic"]
    assert verified(design, zoo) == [every[place] for place in (0, 2, 4, 6)]
    assert verified(design.model_copy(update={"verify": None}), zoo) == []


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "both": ({"zoo": "zoo"}, "study.yml: expected a recipe to train or a zoo, found both; leave one of the two out"),
    "nothing to train": ({"train": None}, "study.yml: expected a recipe to train, found 'known' or 'verify' without it; name one"),
    "no such recipe": ({"train": "none.yml"}, "none.yml: expected a training recipe, found No such file or directory"),
    "strangers": ({"known": ["nobody"]}, "train.yml: expected adapters of the recipe as 'known', found nobody; mend the names"),
    "too few": ({"components": [3]}, "known: expected at least 3 adapters, for targets of 3 components, found 2"),
    "unknown setting": ({"verify": {"items": 3}}, "study.yml: expected a valid verify.items, found Extra inputs are not permitted"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_designs(name: str, place: Path, tmp_path: Path) -> None:
    update, text = BAD[name]
    shutil.copy(place / "train.yml", tmp_path)
    for task in NAMES:
        write_examples(tmp_path / f"{task}.jsonl", [Example("a", "b"), Example("c", "d"), Example("e", "f")])
    (tmp_path / "study.yml").write_text(json.dumps(DESIGN | update))
    with pytest.raises(BadInput) as caught:
        plan_phases(StudyDesign.read(tmp_path / "study.yml"))
    assert str(caught.value).removeprefix(f"{tmp_path}/").startswith(text)
