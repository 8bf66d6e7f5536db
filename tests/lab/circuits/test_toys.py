"""Toy models: their inputs, their training, and the folders of their experiments from one command to the next."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import Result
from typer.testing import CliRunner

from unmerge.cli import app
from unmerge.core.errors import BadInput
from unmerge_lab.circuits import experiments, toys
from unmerge_lab.circuits.baselines import compare
from unmerge_lab.circuits.toys import TOYS, mixing_matrix
from unmerge_lab.circuits.train_toys import train

Run = Callable[..., Result]


@pytest.fixture
def run() -> Run:
    return lambda *arguments: CliRunner().invoke(app, ["circuits", *map(str, arguments)])


@pytest.mark.parametrize("kind", TOYS)
def test_inputs_are_sparse_and_none_is_zero(kind: str) -> None:
    toy = TOYS[kind]
    x = toy.sample(4000, 0)
    assert x.shape == (4000, toy.inputs)
    assert x.any(1).all()
    assert float(x.max()) <= 1
    assert float(x.min()) >= toy.low
    groups = toy.inputs // toy.group
    on = x.view(4000, groups, toy.group) != 0
    assert torch.equal(on.any(2), on.all(2)), "a group is on and off together"
    expected = toys.ACTIVE / (1 - (1 - toys.ACTIVE) ** groups)
    assert float(on.any(2).float().mean()) == pytest.approx(expected, rel=0.08)


def test_training_lowers_the_error_and_is_repeatable() -> None:
    toy = replace(TOYS["tmcs"], steps=200, learning_rate=1e-2)
    trained, again = train(toy, [3, 4]), train(toy, [3, 4])
    assert torch.equal(trained.errors, again.errors)
    assert (trained.errors < train(replace(toy, steps=5), [3, 4]).errors / 2).all()
    x = trained.inputs(100)
    assert torch.equal(x[0], toy.sample(10_000, 7_919 + 3)[:100])
    assert not torch.equal(mixing_matrix(10, torch.Generator().manual_seed(3)), mixing_matrix(10, torch.Generator().manual_seed(4)))


def test_copies_stand_side_by_side() -> None:
    trained = train(replace(TOYS["parallel"], steps=30), [0])
    encoder = trained.models[0].get_parameter("encoder.weight")
    assert encoder.shape == (6, 15)
    blocks = torch.block_diag(*[torch.ones(2, 5)] * 3).bool()
    assert not encoder[~blocks].any()
    assert encoder[blocks].all()


def test_models_that_leave_a_feature_out_are_known() -> None:
    toy = replace(TOYS["tms"], steps=1)
    trained = train(toy, [0, 1, 2])
    assert not trained.represented.any()
    assert trained.chosen(2).models == []


def test_from_command_to_command(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(toys.TOYS, "tms", replace(TOYS["tms"], steps=60, learning_rate=1e-2, least=0.01))
    monkeypatch.setattr(experiments, "SAMPLES", 160)
    monkeypatch.setattr(experiments, "COMPARED", 0)
    folder = tmp_path / "runs" / "tms"
    done = run("train", "tms", "--out", folder, "--models", 1, "--seed", 0)
    assert done.exit_code == 0, done.output
    assert f"{folder}: 1 models" in done.stdout
    done = run("decompose", folder, "--subnetworks", 5, "--epochs", 2)
    assert done.exit_code == 0, done.output
    assert "5 subnetworks of rank 1: reconstruction" in done.stdout
    record = json.loads((folder / "found" / "5-x1" / "measured.json").read_text())
    assert len(record["rows"]) == 1
    assert len(record["rows"][0]["active"]) == 5
    assert sorted(path.name for path in (folder / "found" / "5-x1").iterdir()) == ["measured.json", "settings.json", "subnetworks.safetensors"]
    assert run("decompose", folder, "--subnetworks", 5, "--epochs", 2).stdout == done.stdout, "what is there is read"
    done = run("intervene", folder)
    assert done.exit_code == 0, done.output
    assert "selectivity" in done.stdout
    done = run("report", tmp_path / "runs", "--out", tmp_path / "page.html", "--page", tmp_path / "docs" / "circuits.md")
    assert done.exit_code == 0, done.output
    page, text = (tmp_path / "page.html").read_text(), (tmp_path / "docs" / "circuits.md").read_text()
    assert "<svg" in page
    assert not any(
        word in page.replace("http://www.w3.org", "").replace("http://purl.org", "").replace("http://creativecommons", "")
        for word in ("src=", "<link", "<script")
    )
    assert "## TMS 5-2-5" in text
    assert "| TMS: runs with 5 of 5 circuits at .97 on both matrices | 19 of 20 |" in text
    assert (tmp_path / "docs" / "images" / "circuits-tms.png").exists()


def test_baselines_on_gradients_of_one_model() -> None:
    trained = train(replace(TOYS["tms"], steps=400, learning_rate=1e-2), [1])
    rows = compare(trained.landscape, trained.inputs(300)[0], 5, 0)
    assert set(rows) == {"random", "svd", "nmf", "clusters"}
    for row in rows.values():
        assert 0 <= row["least_cosine"] <= row["mmcs"] <= 1 + 1e-6
    assert rows["random"]["mmcs"] < rows["clusters"]["mmcs"]


def test_what_is_refused(run: Run, tmp_path: Path) -> None:
    for arguments, text in (
        (
            ("train", "xor", "--out", tmp_path / "out"),
            f"the toy model: expected one of {', '.join(TOYS)}, found xor",
        ),
        (("decompose", tmp_path), "expected a toy experiment; run 'unmerge circuits train' first, found no such file"),
        (("intervene", tmp_path), "expected a toy experiment; run 'unmerge circuits train' first, found no such file"),
        (("report", tmp_path, "--out", tmp_path / "page.html"), "found none; run 'make circuits'"),
        (("report", tmp_path), "report: expected --out or --page, found neither"),
    ):
        done = run(*arguments)
        assert done.exit_code == 2
        assert done.stderr.startswith("unmerge: ")
        assert done.stderr.count("\n") == 1
        assert text in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_too_few_models_are_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(toys.TOYS, "tms", replace(TOYS["tms"], steps=1))
    with pytest.raises(BadInput, match="tms: expected 1 models that represent every feature, found 0; try another --seed"):
        experiments.train_toy("tms", tmp_path / "out", 1)
    assert not (tmp_path / "out").exists()
