"""Tables and figures say what the records say, and never compute."""

from __future__ import annotations

from pathlib import Path

import pytest

from unmerge.core.errors import BadOutput
from unmerge.core.records import Source, environment
from unmerge.decomposition import Decomposition
from unmerge.decomposition.result import Absent, Component, SkippedTensor, SolverReport, Unexplained
from unmerge.report import plot_matrix, show_decomposition, show_matrix
from unmerge.verification import AblationMatrix, Row

Capture = pytest.CaptureFixture[str]
SCORES = {"pirate": 1.0, "french": 0.875, "copy": 0.984375, "weak": 0.25}
MATRIX = AblationMatrix(
    rows=[
        Row(removed=None, coefficient=None, scores=SCORES),
        Row(removed="arr", coefficient=0.5, scores=SCORES | {"pirate": 0.03125}),
        Row(removed="eh", coefficient=0.1, scores=SCORES | {"weak": 0.0}),
        Row(removed="oui", coefficient=0.25, scores=SCORES | {"french": 0.0, "copy": 0.5}),
    ],
    task_of={"arr": "pirate", "oui": "french", "eh": "weak"},
    general=["copy"],
    items=dict.fromkeys(SCORES, 64),
)


def test_matrix(capsys: Capture) -> None:
    show_matrix(MATRIX)
    text = capsys.readouterr().out
    assert "[0.03]" in text
    assert "[0.00]" in text
    assert "- 0.5000 x arr: pirate 1.00 -> 0.03, largest other fall +0.00 (french): gone, the others stay" in text
    assert "- 0.1000 x eh: weak 0.25 -> 0.00, largest other fall +0.00 (pirate): too weak before to tell" in text
    assert "- 0.2500 x oui: french 0.88 -> 0.00, largest other fall +0.48 (copy): NOT specific" in text


def test_wide_matrix_is_cut(capsys: Capture) -> None:
    """A zoo has more tasks than a terminal has columns: every one is shown, the title once."""
    scores = {f"task_{number}": number / 32 for number in range(32)} | {"copy": 1.0}
    show_matrix(AblationMatrix(rows=[Row(removed=None, coefficient=None, scores=scores)], task_of={}, general=[], items={}))
    text = capsys.readouterr().out
    assert all(task in text for task in scores)
    assert text.count("exact match") == 1


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")


def decomposition(*components: Component) -> Decomposition:
    return Decomposition(
        method="nnls",
        target=Source(path="models/merged", sha256={}),
        base=None,
        dictionary={},
        components=list(components),
        absent=[Absent(name="other", coefficient=0.01)],
        unexplained=Unexplained(share=0.0123),
        reconstruction_error=0.1109,
        one_minus_cosine_squared=0.01,
        condition_number=1.5,
        norm=2.0,
        tensors=28,
        solver=SolverReport(violation=0.0, steps=1, stopped="done"),
        skipped=[SkippedTensor(tensor="lm_head.weight", reason="vocabulary of 9 in the target, 8 in the base")],
        base_check=None,
        warnings=[],
        seconds=0.1,
        environment=environment(),
    )


def test_decomposition(capsys: Capture) -> None:
    show_decomposition(decomposition(Component(name="arr", coefficient=0.51234, share=0.75)))
    text = capsys.readouterr().out
    for said in ("models/merged, by nnls", "arr", "0.5123", "0.750"):
        assert said in text
    assert "1 atoms not named. Reconstruction error 0.1109 (unexplained 1.23% of the squared norm), condition number 1.50, 28 tensors" in text
    assert "left out: lm_head.weight (vocabulary of 9 in the target, 8 in the base)" in text
    show_decomposition(decomposition())
    assert "none of the dictionary's atoms" in capsys.readouterr().out


def test_names_are_not_markup(capsys: Capture) -> None:
    """A folder may be called like one of rich's tags."""
    names = ["[bold]x[/bold]", "[/]", ":key:"]
    show_decomposition(decomposition(*(Component(name=name, coefficient=1.0, share=1.0) for name in names)))
    text = capsys.readouterr().out
    assert all(name in text for name in names)


@pytest.mark.filterwarnings("error")
def test_figure(tmp_path: Path) -> None:
    """Both formats, and the same record gives the same bytes."""
    first, again = plot_matrix(MATRIX, tmp_path / "matrix"), plot_matrix(MATRIX, tmp_path / "again")
    assert [path.name for path in first] == ["matrix.png", "matrix.svg"]
    assert first[0].read_bytes().startswith(b"\x89PNG")
    svg = first[1].read_text()
    assert svg.startswith("<?xml")
    assert all(word in svg for word in ("pirate", "nothing removed", "- 0.50 x arr"))
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in again]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again.png", "again.svg", "matrix.png", "matrix.svg"]


def test_figure_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BadOutput, match=r"matrix.png: expected a place to write to, found: Not a directory; choose another place with --out"):
        plot_matrix(MATRIX, tmp_path / "file" / "matrix")
