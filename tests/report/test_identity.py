"""Relatives, components that may be either, subtracted ones and those that differ in parts: never called by the wrong name, anywhere."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from typing import Any

import pytest

from unmerge.auditing import Audit
from unmerge.decomposition.result import Component, ProfilePart
from unmerge.report.audit import page, sentence
from unmerge.report.bill import bill_of_materials, written
from unmerge.report.decomposition_table import show_decomposition
from unmerge.report.identity import called, kinship, part_called

RELATIVE = "a relative of <b>style</b>"


def component(**keys: Any) -> Component:
    return Component(name="a", coefficient=1.0, share=1.0, **keys)


@pytest.mark.parametrize(
    ("keys", "name", "means"),
    [
        ({}, "a", None),
        ({"identity": "exact", "similarity": 1.0}, "a", None),
        ({"identity": "exact", "group": ["b", "c"]}, "a or b or c", None),
        ({"identity": "relative"}, "a relative of a", "not a itself, but another training of it or a sibling"),
        (
            {"identity": "relative", "group": ["b"], "similarity": 0.834, "similarity_interval": (0.78, 0.9)},
            "a relative of a or b",
            "not a itself, but another training of it or a sibling; similarity 0.83 (0.78 to 0.90)",
        ),
        (
            {"identity": "undecided", "similarity": 0.98},
            "a or a relative of it",
            "the target does not show whether it is a itself; similarity 0.98",
        ),
        ({"identity": "undecided", "group": ["b"]}, "a or b or a relative of one", "the target does not show whether it is a itself"),
    ],
)
def test_names(keys: dict[str, Any], name: str, means: str | None) -> None:
    assert called(component(**keys)) == name
    assert kinship(component(**keys)) == means


@pytest.mark.parametrize(
    ("layers", "kind", "name"),
    [
        ("0-7", "mlp", "mlp of layers 0-7"),
        ("3", "", "layer 3"),
        ("1, 3", "self_attn", "self_attn of layers 1, 3"),
        ("", "lm_head", "lm_head"),
        ("", "", "the rest"),
    ],
)
def test_parts(layers: str, kind: str, name: str) -> None:
    assert part_called(ProfilePart(layers=layers, kind=kind, coefficient=1.0)) == name


def test_older_records_are_read() -> None:
    old = Component.model_validate({"name": "a", "coefficient": 0.5, "share": 0.1})
    assert (old.identity, old.similarity, old.similarity_interval, old.uniform, old.profile) == (None, None, None, None, [])


def test_table(family_record: Audit, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "240")
    show_decomposition(family_record.decomposition)
    text = capsys.readouterr().out
    rows = {cells[0].strip(): cells[1].strip() for line in text.splitlines() if len(cells := line.strip("│").split("│")) > 1}
    assert rows == {"code": "0.8000", RELATIVE: "0.4500", "maths or maths-v2 or a relative of one": "-0.3000"}
    assert (
        "code acts at 0.900 ± 0.020 in self_attn of layers 0-5, 0.700 ± 0.020 in mlp of layers 0-5, 0.800 ± 0.020 in layers 6-11, "
        "0.000 in the rest: 0.800 is a mean."
    ) in text
    assert f"{RELATIVE}: not <b>style</b> itself, but another training of it or a sibling; similarity 0.83 (0.78 to 0.87)." in text


def test_a_long_profile_is_cut_and_one_that_is_not_known_is_said(family_record: Audit, capsys: pytest.CaptureFixture[str]) -> None:
    code, style, _ = family_record.decomposition.components
    parts = [ProfilePart(layers=str(layer), kind="", coefficient=layer / 10) for layer in range(12)]
    several = [code.model_copy(update={"profile": parts}), style.model_copy(update={"uniform": False})]
    show_decomposition(family_record.decomposition.model_copy(update={"components": several}))
    text = " ".join(capsys.readouterr().out.split())
    assert "0.700 in layer 7, 4 more: 0.800 is a mean." in text
    assert f"{RELATIVE} does not act alike in all of the model: 0.450 is a mean." in text


def test_the_answer(family_record: Audit) -> None:
    assert sentence(family_record) == (
        "merged is base with two known components and one relative of a known one merged in: code (0.80), a relative of <b>style</b> (0.45) and "
        "maths or maths-v2 or a relative of one (-0.30, subtracted), and at least one that is unknown, 12% of the change."
    )
    _, style, _ = family_record.decomposition.components
    alone = family_record.decomposition.model_copy(update={"components": [style], "base": None})
    assert sentence(family_record.model_copy(update={"decomposition": alone})).startswith(
        "merged is an adapter to base with one relative of a known one merged in: a relative of <b>style</b> (0.45), and"
    )
    assert sentence(family_record.model_copy(update={"decomposition": alone, "base_name": None})).startswith("merged is an adapter with one")


class _Rows(HTMLParser):
    """The first cell of every row, by the table's class or caption."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.cells: list[str] = []
        self._inside = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("th", "td"):
            self.cells.append("")
            self._inside = True

    def handle_endtag(self, tag: str) -> None:
        self._inside = self._inside and tag not in ("th", "td")

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.cells[-1] += data


def test_page(family_record: Audit) -> None:
    html = page(family_record)
    cells = [" ".join(cell.split()) for cell in _Rows(html).cells]
    where = next(place for place, cell in enumerate(cells) if cell.startswith(RELATIVE))
    assert cells[where] == f"{RELATIVE}not <b>style</b> itself, but another training of it or a sibling; similarity 0.83 (0.78 to 0.87)"
    assert "may apply: CC-BY-NC-4.0" in cells[where : where + 8]
    assert "From -0.32 to 0.81" in cells
    first = cells.index("self_attn")
    assert cells[first - 2 : first + 4] == ["code", "0-5", "self_attn", "0.9000", "0.8900", "0.9200"]
    assert "a component is a relative of it: its licence may apply" in cells
    # but for the tables of what was read, the name stands nowhere without its being a relative
    heading = html.partition("<h1>")[2].partition("</h1>")[0]
    assert heading.count("&lt;b&gt;style&lt;/b&gt;") == heading.count("a relative of &lt;b&gt;style&lt;/b&gt;") == 1


def test_bill(family_record: Audit) -> None:
    bill = json.loads(written(bill_of_materials(family_record)))
    _, code, style, maths = bill["metadata"]["component"]["pedigree"]["ancestors"]
    held = {entry["bom-ref"]: {one["name"]: one["value"] for one in entry["properties"]} for entry in (code, style, maths)}
    assert (code["name"], style["name"], maths["name"]) == ("code", RELATIVE, "maths")
    assert "hashes" not in style
    assert "licenses" not in style
    (variant,) = style["pedigree"]["variants"]
    assert (variant["name"], variant["licenses"]) == ("<b>style</b>", [{"license": {"id": "CC-BY-NC-4.0"}}])
    assert variant["hashes"] == [{"alg": "SHA-256", "content": "c" * 64}]
    assert held["component:<b>style</b>"]["unmerge:relative-of"] == "<b>style</b>"
    assert held["component:<b>style</b>"]["unmerge:similarity-high"] == "0.87"
    assert "unmerge:relative-of" not in held["component:maths"]
    assert json.loads(held["component:code"]["unmerge:coefficient-by-part"])[1] == {
        "layers": "0-5",
        "kind": "mlp",
        "coefficient": 0.7,
        "interval": [0.69, 0.72],
    }
    found = [entry["evidence"]["identity"][0] for entry in (code, style, maths)]
    assert [one["concludedValue"] for one in found] == ["code", RELATIVE, "maths"]
    assert [round(one["confidence"], 6) for one in found] == [1.0, 1.0, round(1 / 3, 6)]  # maths, maths-v2, or a relative
    assert "similarity 0.83" in found[1]["methods"][0]["value"]
