"""Results in a notebook: frames, figures, HTML, and removing what was found."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import unmerge
from unmerge.core.columns import frame_of, html_table
from unmerge.core.errors import MissingExtra


@pytest.fixture(scope="module")
def result(zoo: Path) -> unmerge.Decomposition:
    return unmerge.decompose(zoo / "known" / "pirate", zoo / "known", zoo / "zoo-base")


def test_a_frame_has_a_row_for_every_component(result: unmerge.Decomposition) -> None:
    frame = result.to_frame()
    assert isinstance(frame, pd.DataFrame)
    assert list(frame["name"]) == ["pirate"]
    assert list(frame["coefficient"]) == [result.coefficient("pirate")]
    assert {"low", "high", "share", "containment", "p_value", "q_value", "identity", "group"} < set(frame.columns)


def test_without_pandas_it_is_a_dict_of_columns(result: unmerge.Decomposition, monkeypatch: pytest.MonkeyPatch) -> None:
    found: Any = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == "pandas" else found(name, *more))
    columns = result.to_frame()
    assert isinstance(columns, dict)
    assert columns["name"] == ["pirate"]
    assert frame_of({"a": [1]}) == {"a": [1]}


def test_html_escapes_what_it_is_given(result: unmerge.Decomposition) -> None:
    assert "<td>pirate</td>" in result._repr_html_()
    table = html_table({"<b>": ["<script>"], "n": [0.123456], "g": [["x", "y"]], "none": [None]}, "a & b")
    assert "<caption>a &amp; b</caption>" in table
    assert "<th>&lt;b&gt;</th>" in table
    assert "<td>&lt;script&gt;</td><td>0.1235</td><td>x, y</td><td></td>" in table


def test_a_plot_has_the_coefficients(result: unmerge.Decomposition) -> None:
    axes = result.plot()
    assert [text.get_text() for text in axes.get_yticklabels()] == ["pirate"]
    dots = [line.get_xdata()[0] for line in axes.lines if line.get_marker() == "o"]
    assert dots == [result.coefficient("pirate")]
    assert result.plot(axes) is axes


def test_without_matplotlib_the_line_that_installs_it_is_said(result: unmerge.Decomposition, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtra, match=r"pip install 'unmerge\[plot\]'"):
        result.plot()


def test_what_was_found_is_removed(result: unmerge.Decomposition, zoo: Path, tmp_path: Path) -> None:
    record = result.ablate("pirate", out=tmp_path / "without")
    assert record.removed == {"pirate": result.coefficient("pirate")}
    assert (tmp_path / "without" / "adapter_model.safetensors").exists()
    with pytest.raises(unmerge.BadInput, match=r"expected a component of the target \(pirate\), found pirat; did you mean pirate\?"):
        result.ablate("pirat", out=tmp_path / "other")
    read = unmerge.Decomposition.model_validate_json(result.model_dump_json())
    with pytest.raises(unmerge.BadInput, match="found a record; call unmerge"):
        read.ablate("pirate", out=tmp_path / "other")
    assert read.model_dump() == result.model_dump()


def test_a_verification_has_a_row_for_every_component(audit_record: unmerge.Audit) -> None:
    found = audit_record.verification
    assert found is not None
    frame = found.to_frame()
    assert list(frame["removed"]) == [component.removed for component in found.components]
    assert list(frame["verdict"]) == [component.verdict for component in found.components]
    assert f"<td>{found.components[0].verdict}</td>" in found._repr_html_()
