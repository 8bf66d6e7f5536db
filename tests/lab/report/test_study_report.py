"""A study's page: the published numbers, tables by their cells, figures as files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from unmerge.core.errors import BadInput
from unmerge.core.records import Source, environment, write_json
from unmerge_lab.report import published, study_tables
from unmerge_lab.report.study_figures import plot_spaces
from unmerge_lab.report.study_page import show_study, write_study_page
from unmerge_lab.report.study_record import RECORD, SUMMARY, Alignment, StudyRecord, Summary, read_rows, write_rows
from unmerge_lab.report.study_tables import Summaries

METHODS, SPACES = ("nnls", "lasso", "best_subset"), ("exact", "compressed")


def summary(group: str, merge: str, space: str, method: str, dtype: str = "all", **values: float | None) -> Summary:
    numbers: dict[str, float | None] = {"precision": 0.75, "recall": None if group == "unknown" else 0.5, "perfect": 0.25, "sparsity": 3.0}
    numbers |= {"reconstruction_error": 0.2, "one_minus_cosine_squared": 0.04, "effective_components": 2.0}
    numbers |= {"median_coefficient_error": 0.01, "largest_coefficient_error": 0.02, "seconds": 0.5, "solver_seconds": 0.001, "memory_mib": 5.0}
    kinds = {"group": group, "merge": merge, "is_adapter": merge in ("svd", "adapters"), "dtype": dtype, "space": space, "method": method}
    return Summary.model_validate({**kinds, "targets": 4, **numbers, **values})


@pytest.fixture
def rows() -> list[Summary]:
    return [
        summary(group, merge, space, method, dtype)
        for group in ("known", "mixed", "unknown")
        for merge in ("ties", "dare_ties", "merges", "svd", "adapters")
        for dtype in ("all", "float32", "bfloat16")
        for space in SPACES
        for method in METHODS
    ]


@pytest.fixture
def folder(rows: list[Summary], tmp_path: Path) -> Path:
    """A study's records, made up."""
    write_rows(tmp_path / SUMMARY, Summary, rows)
    numbers = {"value": 0.3, "low": 0.2, "high": 0.4, "baseline": 0.1, "baseline_low": 0.05, "baseline_high": 0.15, "p_value": 0.0005}
    nowhere = Source(path="zoo", sha256={})
    record = StudyRecord(
        design={"components": [2, 3], "seeds": [7, 8], "groups": ["known"]},
        drawn={"equal": 0.7, "least": 0.3, "most": 1.0},
        base=nowhere,
        dictionary={"a": nowhere, "b": nowhere},
        targets=36,
        cells=216,
        jobs=2,
        seconds=120,
        resumed=6,
        alignment=[Alignment(space="exact", method="nnls", measure="tfidf", targets=4, **numbers)],
        environment=environment(),
    )
    write_json(tmp_path / RECORD, record)
    return tmp_path


def cells(table: str) -> dict[str, list[str]]:
    """A Markdown table's rows by their first cell, the head under its own."""
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    return {first: rest for first, *rest in lines}


def test_published_numbers() -> None:
    """As in the published tables."""
    assert len(published.PRECISION_RECALL) == 9 * 4
    assert published.PRECISION_RECALL["known", "omp", "ties"] == (0.56, 1.0)
    assert published.PRECISION_RECALL["mixed", "lasso", "dare_linear"] == (0.67, 0.42)
    assert {method for _, method, _ in published.PRECISION_RECALL} == published.SECONDS.keys()


def test_reference() -> None:
    """The method's own, or the best by F1: nnls has .46 and lasso .33 under task_arithmetic, but .47 and .52 under dare_linear."""
    assert published.reference("mixed", "omp", "linear") == ("omp", (0.29, 1.0))
    assert published.reference("mixed", "certificate", "task_arithmetic") == ("nnls", (0.30, 1.0))
    assert published.reference("mixed", "ridge", "dare_linear") == ("lasso", (0.67, 0.42))
    assert published.reference("known", "nnls", "dare_ties") is None
    assert published.reference("unknown", "nnls", "ties") is None


@pytest.mark.parametrize(
    ("ours", "theirs", "said"),
    [
        ((1.0, 1.0), (1.0, 1.0), "equal"),
        ((0.304, 1.0), (0.30, 1.0), "equal"),
        ((0.306, 1.0), (0.30, 1.0), "better"),
        ((1.0, 1.0), (0.30, 0.9), "better"),
        ((0.2, 1.0), (0.30, 1.0), "worse"),
        ((0.2, 0.5), (0.30, 1.0), "worse"),
        ((1.0, 0.5), (0.30, 1.0), "split"),
    ],
)
def test_verdict(ours: tuple[float, float], theirs: tuple[float, float], said: str) -> None:
    assert published.verdict(ours, theirs) == said


def test_precision_recall(rows: list[Summary]) -> None:
    table = cells(study_tables.precision_recall(Summaries(rows), "mixed", "exact"))
    assert table["method"] == ["ties", "dare_ties", "svd", "against the published"]
    assert table["nnls"] == ["0.75/0.50 (0.41/1.00)", "0.75/0.50", "0.75/0.50", "1 split"]
    assert table["lasso"] == ["0.75/0.50 (1.00/0.92)", "0.75/0.50", "0.75/0.50", "1 worse"]
    assert table["best_subset"][0] == "0.75/0.50 (1.00/0.92 lasso)"


def test_other_tables(rows: list[Summary]) -> None:
    found = Summaries(rows)
    assert (found.merges, found.kinds, found.dtypes) == (["ties", "dare_ties"], ["svd"], ["float32", "bfloat16"])
    overview = cells(study_tables.overview(found, "known", "exact"))
    assert overview["nnls"] == ["0.75", "0.50", "0.25", "3.00", "2.00", "0.200", "0.040", "1.00%", "2.00%", "0.500", "5"]
    assert cells(study_tables.overview(found, "unknown", "exact"))["nnls"][1] == ""
    assert cells(study_tables.unknown(found, "exact"))["nnls"] == ["3.00", "3.00", "3.00", "3.00", "0.200", "0.040"]
    assert cells(study_tables.spaces(found, "unknown"))["nnls"] == ["3.00 named", "3.00 named"]
    assert cells(study_tables.seconds(found))["nnls"] == ["0.500", "0.500", "0.0010", "0.507"]
    assert cells(study_tables.seconds(found))["best_subset"][-1] == ""
    errors = [line for line in study_tables.cosine_errors(found, "exact").splitlines() if line.startswith("| nnls | ")]
    assert errors[0] == "| nnls | known | 0.040 (0.283) | 0.040 | 0.040 (0.243) | 0.040 |"
    assert errors[2] == "| nnls | unknown | 0.040 | 0.040 | 0.040 (0.677) | 0.040 |"
    assert "| nnls | mixed | 0.75/0.50 | 0.75/0.50 | 2.00% | 2.00% |" in study_tables.dtypes(found, "exact")
    assert "unknown" not in study_tables.dtypes(found, "exact")


def test_page(folder: Path, tmp_path: Path) -> None:
    page = tmp_path / "docs" / "study.md"
    write_study_page(folder, page)
    text = page.read_text()
    assert "36 targets (known: 8 merges, 4 adapters; mixed: 8 merges, 4 adapters; unknown: 8 merges, 4 adapters) of 2, 3 components" in text
    assert "components, seeds 7, 8; 2 atoms, 3 methods, 2 spaces: 216 decompositions." in text
    assert "2.0 minutes in 2 processes of one thread, after earlier runs that had finished 6 of the decompositions" in text
    assert "(0.3 to 1.0, in\n  hundredths; equal ones are 0.7)" in text
    assert "| random choice | 0.100 (0.050 to 0.150) |  |\n| nnls | 0.300 (0.200 to 0.400) | 0.0005 |" in text
    assert f'"torch": "{json.loads((folder / RECORD).read_text())["environment"]["versions"]["torch"]}"' in text
    for figure in ("components", "errors", "spaces"):
        assert f"(images/study-{figure}.png)" in text
        png, svg = (page.parent / "images" / f"study-{figure}.{kind}" for kind in ("png", "svg"))
        assert png.read_bytes().startswith(b"\x89PNG")
        assert "</svg>" in svg.read_text()
    before = png.read_bytes(), svg.read_bytes()
    plot_spaces(Summaries(read_rows(folder / SUMMARY, Summary)), page.parent / "images" / "study-spaces")
    assert (png.read_bytes(), svg.read_bytes()) == before
    assert len(list(page.parent.rglob("*"))) == 1 + 1 + 6


def drop(**of: str) -> Callable[[Summary], bool]:
    return lambda row: any(getattr(row, name) == value for name, value in of.items())


@pytest.mark.parametrize("left_out", [drop(group="unknown"), drop(space="compressed"), drop(space="exact"), drop(merge="svd"), drop(method="nnls")])
def test_page_of_less(
    folder: Path, rows: list[Summary], left_out: Callable[[Summary], bool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not every study has every group, space, kind and method."""
    monkeypatch.setattr("unmerge_lab.report.study_figures.save_figure", lambda _, stem: [stem])  # saving takes seconds
    write_rows(folder / SUMMARY, Summary, [row for row in rows if not left_out(row)])
    write_study_page(folder, tmp_path / "study.md")
    assert "None" not in (tmp_path / "study.md").read_text()


def test_on_the_terminal(folder: Path) -> None:
    console = Console(width=200, record=True, quiet=True)
    console.quiet = False
    with console.capture() as shown:
        show_study(folder, console)
    assert "all merges, space exact" in shown.get()
    assert [line for line in shown.get().splitlines() if "best_subset" in line and "unknown" in line and "3.00" in line]


def test_rows(folder: Path, rows: list[Summary]) -> None:
    assert read_rows(folder / SUMMARY, Summary) == rows
    with pytest.raises(BadInput, match="expected a study's record, found no such file"):
        write_study_page(folder / "nowhere", folder / "page.md")
