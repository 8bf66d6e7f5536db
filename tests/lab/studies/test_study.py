"""A whole study, small: what it finds, what it writes, and what is left of it after a kill."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from unmerge.checkpoints import Checkpoint
from unmerge.cli import app
from unmerge.core.errors import BadInput, BadOutput
from unmerge.core.journal import Journal
from unmerge.decomposition import decompose, open_base, open_dictionary, open_vector
from unmerge.decomposition.blocks import problem_of
from unmerge.decomposition.spaces import SPACES
from unmerge.solvers import SOLVERS
from unmerge.vectors import gram
from unmerge_lab.report.study_record import CELLS, SUMMARY, Cell, StudyRecord, Summary, read_rows
from unmerge_lab.studies.answers import of_decomposition, of_solution
from unmerge_lab.studies.design import StudyDesign
from unmerge_lab.studies.make_target import base_in
from unmerge_lab.studies.study import run_study
from unmerge_lab.studies.targets import Target, targets

study = importlib.import_module("unmerge_lab.studies.study")
worker = importlib.import_module("unmerge_lab.studies.worker")

DESIGN = {
    "groups": ["known", "unknown"],
    "components": [3],
    "merges": {"linear": {}, "dare_linear": {"density": 0.5}},
    "adapters": {"cat": {}, "extract": {}},
    "dtypes": ["bfloat16"],
    "seeds": [0],
    "methods": ["nnls", "dot"],
    "spaces": ["exact", "nonzero"],
}
#: run a study in two processes; kill its main process when the first target is finished, and say before who works for it
KILLED = """
import json, multiprocessing, os, signal, sys
from pathlib import Path

def stop(done, total):
    Path(sys.argv[2]).write_text(json.dumps([process.pid for process in multiprocessing.active_children()]))
    os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
    from unmerge_lab.studies.design import StudyDesign
    from unmerge_lab.studies.study import run_study
    run_study(StudyDesign.model_validate_json(sys.argv[3]), Path(sys.argv[1]), stop, 2, keep=True)
"""


def unwatched(_done: int, _total: int) -> None:
    pass


@pytest.fixture(scope="module")
def design() -> StudyDesign:
    return StudyDesign.model_validate(DESIGN)


@pytest.fixture(scope="module")
def out(design: StudyDesign, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished study with its targets kept."""
    out = tmp_path_factory.mktemp("study") / "out"
    run_study(design, out, unwatched, keep=True)
    return out


@pytest.fixture
def begun(out: Path, tmp_path: Path) -> Path:
    """The same without its results, as if not a cell were finished; the targets are there."""
    copy = shutil.copytree(out, tmp_path / "begun")
    for name in (CELLS, SUMMARY, "study.json"):
        (copy / name).unlink()
    shutil.rmtree(copy / "cells")
    return copy


def found(folder: Path) -> list[Cell]:
    return read_rows(folder / CELLS, Cell)


def timeless(cells: list[Cell]) -> list[dict[str, Any]]:
    return [cell.model_dump(exclude={"seconds", "solver_seconds", "memory_mib"}) for cell in cells]


def test_what_is_found(out: Path) -> None:
    """nnls finds what was merged with the coefficients that acted, and nothing where there is nothing."""
    cells = [cell for cell in found(out) if cell.method == "nnls" and cell.space == "exact"]
    assert len(cells) == 8
    for cell in cells:
        assert cell.perfect
        assert sorted(cell.named) == sorted(cell.truth)
        assert cell.sparsity == len(cell.truth) == (3 if cell.group == "known" else 0)
        if cell.group == "known":
            assert cell.coefficient_error is not None
            assert cell.coefficient_error < (0.03 if cell.merge == "dare_linear" else 2e-3)
            assert 2.5 < cell.effective_components < 3.2
            assert (cell.reconstruction_error > 0.3) == (cell.merge == "dare_linear")  # half of the entries are gone there
            assert cell.reconstruction_error == pytest.approx(cell.one_minus_cosine_squared**0.5, rel=1e-3, abs=1e-7)  # as least squares has it
        else:
            assert cell.recall is None
            assert cell.coefficient_error is None
            assert cell.reconstruction_error > 0.9
        assert cell.seconds > (cell.solver_seconds or 0) > 0
        assert cell.memory_mib >= 0


def test_records(out: Path, design: StudyDesign) -> None:
    record = StudyRecord.model_validate_json((out / "study.json").read_text())
    assert json.loads((out / "study.json").read_text())["schema"] == "unmerge/study/1"
    assert StudyDesign.model_validate(record.design) == design
    assert (record.targets, record.cells, record.resumed) == (8, 32, 0)
    assert {(found.space, found.method, found.measure) for found in record.alignment} == {
        (space, method, measure) for space, method in design.cells for measure in ("tfidf", "category")
    }
    assert {found.targets for found in record.alignment} == {4}
    assert {path.name for path in (out / "cells").iterdir()} == {f"{cell.target}.jsonl" for cell in found(out)}
    assert {path.name for path in (out / "targets").iterdir() if path.is_dir()} == {cell.target for cell in found(out)}


def test_summary_is_the_mean(out: Path) -> None:
    rows = {(row.group, row.merge, row.dtype): row for row in read_rows(out / SUMMARY, Summary) if (row.space, row.method) == ("nonzero", "dot")}
    cells = {cell.merge: cell for cell in found(out) if (cell.group, cell.space, cell.method) == ("known", "nonzero", "dot")}
    both = rows["known", "merges", "all"]
    assert both.targets == 2
    for name in ("precision", "recall", "reconstruction_error", "effective_components", "seconds", "sparsity"):
        one, two = (getattr(cells[merge], name) for merge in ("linear", "dare_linear"))
        assert getattr(both, name) == pytest.approx((one + two) / 2)
    assert both.largest_coefficient_error == max(cells[merge].coefficient_error or 0 for merge in ("linear", "dare_linear"))
    assert rows["known", "linear", "bfloat16"].precision == cells["linear"].precision
    assert {key[1] for key in rows} == {"linear", "dare_linear", "merges", "cat", "extract", "adapters"}
    assert rows["unknown", "adapters", "all"].recall is None


@pytest.mark.parametrize("space", SPACES)
def test_shared_products_are_a_decomposition(out: Path, zoo: Path, space: str) -> None:
    """What a study takes from inner products that all methods share is what ``decompose`` says of the target by itself."""
    base = open_base(zoo / "zoo-base")
    dictionary = open_dictionary([zoo / "known"], base)
    atoms = tuple(atom.name for atom in dictionary.atoms)
    target = open_vector(out / "targets" / "known-dare_linear-bfloat16-0-0", base)
    problem = problem_of(gram(dictionary.atoms, target))
    ours = of_solution(SPACES[space].solve(SOLVERS["omp"], SPACES[space].products(dictionary.atoms, target, iter)), problem, atoms)
    theirs = of_decomposition(decompose(target, dictionary, base, "omp", space=space), problem, atoms)
    assert set(ours.named) == set(theirs.named)
    assert set(ours.candidates) == set(theirs.candidates)
    for name in ("coefficients", "ranking", "contributions", "error", "one_minus_cosine_squared"):
        assert getattr(ours, name) == pytest.approx(getattr(theirs, name), abs=1e-12)


def test_ranked_by_evidence_and_right_by_group(out: Path, zoo: Path) -> None:
    """A test ranks by containment, or by 1 - p; a component's group is one with it, and listed nowhere else."""
    base = open_base(zoo / "zoo-base")
    dictionary = open_dictionary([zoo / "known"], base)
    atoms = tuple(atom.name for atom in dictionary.atoms)
    target = open_vector(out / "targets" / "known-linear-bfloat16-0-0", base)
    result = decompose(target, dictionary, base, "nnls")
    problem = problem_of(gram(dictionary.atoms, target))
    first, twin, *rest = result.components
    assert rest
    tested = result.model_copy(
        update={
            "components": [first.model_copy(update={"containment": 0.9, "p_value": 0.001, "group": [twin.name]})],
            "absent": [atom.model_copy(update={"containment": 0.1, "p_value": 0.25}) for atom in result.absent],
        }
    )
    answer = of_decomposition(tested, problem, atoms)
    assert answer.named == (first.name,)
    assert answer.candidates == (frozenset({first.name, twin.name}),)
    by_name = {name: dict(zip(atoms, values, strict=True)) for name, values in (("ranking", answer.ranking), ("found", answer.coefficients))}
    assert by_name["ranking"][first.name] == by_name["ranking"][twin.name] == 0.9
    assert by_name["ranking"][result.absent[0].name] == 0.1
    assert by_name["ranking"][rest[0].name] == 0  # nothing is known of it
    assert by_name["found"][first.name] == first.coefficient
    assert by_name["found"][twin.name] == 0
    for atom in (*tested.components, *tested.absent):
        atom.containment = None
    ranking = dict(zip(atoms, of_decomposition(tested, problem, atoms).ranking, strict=True))
    assert ranking[first.name] == ranking[twin.name] == 0.999
    assert ranking[result.absent[0].name] == 0.75


@pytest.mark.parametrize("space", ["exact", "compressed"])
def test_certificate_is_a_method_like_others(out: Path, design: StudyDesign, space: str) -> None:
    """It is asked as a whole, ranks by its own evidence, and finds what is in there."""
    (target,) = (target for target in targets(design, design.open_zoo()) if target.name == "known-linear-bfloat16-0-0")
    base, dictionary = worker._opened(design.open_zoo(), design.open_zoo().base)
    asked = worker._Asked(open_vector(out / "targets" / target.name, base), dictionary, base)
    cell = asked.cell(target, space, "certificate")
    assert cell.perfect
    assert cell.solver_seconds is None
    assert cell.coefficient_error is not None
    assert cell.coefficient_error < (1e-3 if space == "exact" else 0.1)
    ranking = dict(zip(asked.atoms, cell.ranking, strict=True))
    assert min(ranking[name] for name in cell.truth) > 0.9
    assert max(value for name, value in ranking.items() if name not in cell.truth) < (0.9 if space == "exact" else 1)


def test_second_run_computes_nothing(out: Path, design: StudyDesign, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (out / CELLS).read_bytes()
    monkeypatch.setattr(study, "run_job", lambda _: pytest.fail("a finished target was done again"))
    record = run_study(design, out, lambda _done, _total: pytest.fail("there was something to do"), keep=True)
    assert record.resumed == record.cells == 32
    assert (out / CELLS).read_bytes() == before


def test_killed_in_the_middle(begun: Path, out: Path, design: StudyDesign, monkeypatch: pytest.MonkeyPatch) -> None:
    """kill -9 of the main process: its workers end with it, finished cells stay as they are, and only the others are done again."""
    script, pids = begun.parent / "killed.py", begun.parent / "pids.json"
    script.write_text(KILLED)
    done = subprocess.run(
        [sys.executable, script, begun, pids, design.model_dump_json()], capture_output=True, text=True, check=False, timeout=120, env=os.environ
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    workers = json.loads(pids.read_text())
    assert len(workers) == 2
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in workers):
        assert time.monotonic() < deadline, "the workers outlive the study"
        time.sleep(0.05)
    kept = {file.name: file.read_text() for file in (begun / "cells").iterdir()}
    finished = sum(len(Journal(begun / "cells" / name, Cell).records()) for name in kept)
    assert 4 <= finished < 32
    asked: list[tuple[str, str, str]] = []
    real = worker._Asked.cell

    def counted(self: Any, target: Target, space: str, method: str) -> Cell:
        asked.append((target.name, space, method))
        return real(self, target, space, method)

    monkeypatch.setattr(worker._Asked, "cell", counted)
    told: list[tuple[int, int]] = []
    record = run_study(design, begun, lambda done, total: told.append((done, total)), keep=True)
    assert len(set(asked)) == len(asked) == 32 - finished
    assert told[-1] == (32 - finished, 32 - finished)
    assert record.resumed == finished
    for name, text in kept.items():
        whole = text[: text.rfind("\n") + 1]
        assert (begun / "cells" / name).read_text().startswith(whole)
    assert timeless(found(begun)) == timeless(found(out))


def test_torn_line(out: Path, tmp_path: Path) -> None:
    """A line cut short by a kill is no cell, and the next one does not continue it."""
    file = next((out / "cells").iterdir())
    first, second, *_ = Journal(file, Cell).records()
    journal = Journal(tmp_path / "cells.jsonl", Cell)
    assert journal.records() == []
    journal.mend()
    journal.add(first)
    with journal.file.open("a") as stream:
        stream.write(second.model_dump_json()[:100])
    assert journal.records() == [first]
    journal.mend()
    journal.add(second)
    assert journal.records() == [first, second]


def test_error_is_one_line(out: Path, design: StudyDesign, tmp_path: Path) -> None:
    """Of a broken target, at the command line; from another process the same line comes back as text."""
    copy = shutil.copytree(out, tmp_path / "copy")
    broken = copy / "targets" / "unknown-linear-bfloat16-0-0" / "model.safetensors"
    broken.write_bytes(b"no tensors")
    (copy / "cells" / "unknown-linear-bfloat16-0-0.jsonl").unlink()
    (tmp_path / "study.yml").write_text(design.model_dump_json())
    result = CliRunner().invoke(app, ["study", str(tmp_path / "study.yml"), "--out", str(copy), "--jobs", "1", "--keep-targets"])
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith(f"unmerge: {broken}: expected")
    assert result.stderr.count("\n") == 1
    (job,) = (job for job in study._jobs(design, design.open_zoo(), copy, keep=True) if job.folder == broken.parent)
    assert f"unmerge: {worker.run_in_worker(job)}\n" == result.stderr


def test_another_study(out: Path, design: StudyDesign, tmp_path: Path) -> None:
    other = design.model_copy(update={"seeds": [1]})
    with pytest.raises(BadOutput, match="found: another study, or one of another zoo or version; remove it or choose another --out"):
        run_study(other, out, unwatched)
    (tmp_path / "mine").write_text("")
    with pytest.raises(BadOutput, match="found: it exists already"):
        run_study(design, tmp_path, unwatched)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_cells_of_other_code_are_not_taken(tmp_path: Path) -> None:
    """Whatever a cell depends on counts; how it is shown does not."""
    for file in ("solvers/nnls.py", "report/table.py", "cli/study.py"):
        (tmp_path / file).parent.mkdir()
        (tmp_path / file).write_text("")
    before = study.code_of(tmp_path)
    for file, same in (("report/table.py", True), ("cli/study.py", True), ("solvers/nnls.py", False)):
        (tmp_path / file).write_text("x = 1")
        assert (study.code_of(tmp_path) == before) == same


def test_two_runs_at_once(out: Path, design: StudyDesign) -> None:
    before = (out / CELLS).stat().st_mtime_ns
    with study._alone(out / "job.json"), pytest.raises(BadOutput, match="found: another run at work on it; wait for it, or choose another --out"):
        run_study(design, out, unwatched, keep=True)
    assert (out / CELLS).stat().st_mtime_ns == before
    run_study(design, out, unwatched, keep=True)


def test_targets_are_deleted(design: StudyDesign, tmp_path: Path) -> None:
    """Unless they are asked for."""
    small = design.model_copy(update={"groups": ["known"], "adapters": {}, "merges": {"linear": design.merges["linear"]}})
    run_study(small, tmp_path / "out", unwatched)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"cells", CELLS, "job.json", "study.json", SUMMARY}


def test_base_in_another_dtype(zoo: Path, tmp_path: Path) -> None:
    base = zoo / "zoo-base"
    assert base_in(base, "bfloat16", tmp_path) == base
    copy = base_in(base, "float32", tmp_path)
    before, after = Checkpoint.open(base), Checkpoint.open(copy)
    assert after.shapes == before.shapes
    assert after.config["dtype"] == "float32"
    for tensor in before.shapes:
        assert after.files.dtype(tensor) == "F32"
        assert torch.equal(after.read(tensor), before.read(tensor).float())
    times = {file: file.stat().st_mtime_ns for file in copy.iterdir()}
    assert {file.name for file in times} >= {"config.json", "model.safetensors", "tokenizer.json"}
    assert base_in(base, "float32", tmp_path) == copy
    assert {file: file.stat().st_mtime_ns for file in copy.iterdir()} == times


def test_no_parquet(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"cells\.parquet: expected a study's Parquet file, found .*; run 'unmerge study' again"):
        read_rows(tmp_path / CELLS, Cell)
    (tmp_path / CELLS).write_bytes(b"no rows")
    with pytest.raises(BadInput, match="expected a study's Parquet file"):
        read_rows(tmp_path / CELLS, Cell)
