"""The audit's page as text: what it says, that it is whole, and that nothing in a record can break out of it."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from unmerge.auditing import Audit
from unmerge.recipes.record import Proof, Unknown
from unmerge.report.audit import page, sentence, write_audit
from unmerge.report.audit.heat_map import Modules
from unmerge.report.audit.table import Table, number, word
from unmerge.report.audit.words import counted, listed, p_value, percent

#: elements that have no end
_VOID = {"meta", "link", "br", "hr", "img", "input"}


class Reader(HTMLParser):
    """Checks that elements end in order; keeps links, ids, addresses and text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes.append((tag, dict(attrs)))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"style", "script"} & set(self.open):
            self.text.append(data)

    def values(self, name: str) -> list[str]:
        return [value for _, attributes in self.attributes if (value := attributes.get(name))]


@pytest.fixture(scope="module")
def html(audit_record: Audit) -> str:
    return page(audit_record)


@pytest.fixture(scope="module")
def reader(html: str) -> Reader:
    return Reader(html)


def test_the_answer_is_one_sentence(audit_record: Audit) -> None:
    assert sentence(audit_record) == (
        "merged is base with three known components merged in: code (0.80), <b>style</b> (0.45) and maths or maths-v2 (0.30), "
        "and at least one that is unknown, 12% of the change."
    )


def test_a_recipe_that_makes_the_target_leaves_nothing_unexplained(audit_record: Audit) -> None:
    assert audit_record.recipe
    proved = audit_record.model_copy(update={"recipe": audit_record.recipe.model_copy(update={"identical_share": 1.0})})
    assert sentence(proved) == (
        "merged is base with three known components merged in by ties: code (0.80), <b>style</b> (0.45) and maths or maths-v2 (0.30), "
        "and nothing else."
    )
    text = " ".join("".join(Reader(page(proved)).text).split())
    assert "the recipe makes it all; one coefficient each would leave 12%" in text
    assert "so that nothing is unexplained" in text
    assert proved.recipe
    assert not proved.model_copy(update={"recipe": proved.recipe.model_copy(update={"answer": "part of a recipe"})}).proved


def test_the_answer_where_there_is_less_to_say(audit_record: Audit) -> None:
    def said(**keys: object) -> str:
        return sentence(audit_record.model_copy(update={"decomposition": audit_record.decomposition.model_copy(update=keys)}))

    left, components = audit_record.decomposition.unexplained, audit_record.decomposition.components
    fully = left.model_copy(update={"share": 0.011, "components": 0})
    partly = left.model_copy(update={"share": 0.1, "components": None})
    assert said(components=components[:1], unexplained=fully) == "merged is base with one known component merged in: code (0.80), and nothing else."
    assert said(components=components[:1], unexplained=partly).endswith("code (0.80), and 10% of the change is not explained.")
    assert said(components=[]) == "None of the 6 known components is in merged: at least one that is unknown, 12% of the change."
    assert said(components=[], unexplained=fully) == "None of the 6 known components is in merged."
    many = [components[0].model_copy(update={"name": f"n{place}", "group": []}) for place in range(9)]
    assert "n4 (0.80), n5 (0.80) and three more, and at least" in said(components=many)


def test_everything_is_on_the_page(reader: Reader, audit_record: Audit) -> None:
    text = " ".join("".join(reader.text).split())
    assert sentence(audit_record) in text
    for part in (
        "tiny records the base other, not base",
        "or maths-v2: they cannot be told apart",
        "2 of 3",
        "not specific",
        "another component carries it: code scores .4 on sums",
        "merge_method: ties",
        "makes 98% of the weights that differ from the base identical",
        "small changes are missing",
        "code (GPL-3.0) lets nobody add terms",
        "model.layers.1.self_attn.q_proj.weight",
        "12 items are needed to see a fall of 64%",
        audit_record.decomposition.target.sha256["model.safetensors"],
    ):
        assert part in text, part


def test_links_lead_somewhere_and_ids_are_unique(reader: Reader) -> None:
    ids = reader.values("id")
    assert len(ids) == len(set(ids))
    links = reader.values("href")
    assert {link[1:] for link in links if link.startswith("#")} <= set(ids)
    assert all(link.startswith(("#", "data:")) for link in links)
    assert not reader.values("src")


def test_nothing_in_a_record_breaks_out(audit_record: Audit) -> None:
    evil = "</script></style><img src=x onerror=alert(1)>\"'&\x07"
    component = audit_record.decomposition.components[0].model_copy(update={"name": evil, "group": [evil]})
    dictionary = {**audit_record.decomposition.dictionary, evil: audit_record.decomposition.target}
    found = audit_record.decomposition.model_copy(update={"components": [component], "warnings": [evil], "dictionary": dictionary})
    licence = audit_record.licences.licences[2].model_copy(update={"of": evil, "name": evil, "link": "javascript:alert(1)"})
    licences = audit_record.licences.model_copy(update={"licences": [licence]})
    reader = Reader(page(audit_record.model_copy(update={"name": evil, "base_name": evil, "decomposition": found, "licences": licences})))
    assert not [tag for tag, attributes in reader.attributes if tag == "img" or "onerror" in attributes]
    assert not [link for link in reader.values("href") if link.startswith("javascript")]


def test_tables_can_be_downloaded(reader: Reader, audit_record: Audit) -> None:
    files = {
        attributes["download"]: base64.b64decode((attributes["href"] or "").partition("base64,")[2]).decode()
        for _, attributes in reader.attributes
        if attributes.get("download")
    }
    expected = "components not-named coefficient-by-tensor verdicts matrix dose-response controls ways licences files proof rivals".split()
    assert {f"{name}.csv" for name in expected} <= files.keys()
    rows = list(csv.DictReader(io.StringIO(files["components.csv"])))
    assert [row["component"] for row in rows] == ["code", "<b>style</b>", "maths"]
    assert [float(row["coefficient"]) for row in rows] == [0.8, 0.45, 0.3]
    assert rows[2]["cannot_be_told_from"] == "maths-v2"
    matrix = list(csv.reader(io.StringIO(files["matrix.csv"])))
    assert matrix[0] == ["Removed", "coding", "style", "sums", "copy"]
    assert matrix[2] == ["code", "0.03125", "0.984375", "0.859375", "0.984375"]
    assert Audit.model_validate_json(files["audit.json"]) == audit_record


def test_no_cell_is_a_formula() -> None:
    table = Table("t", "t", ("a", "b"), [[word("=HYPERLINK(1)"), number(-0.5)], [word("@x"), number(None)]])
    assert table.csv == "a,b\n'=HYPERLINK(1),-0.5\n'@x,\n"


def test_a_page_without_verification_recipe_or_components(audit_record: Audit) -> None:
    found = audit_record.decomposition.model_copy(update={"components": [], "absent": [], "test": None, "method": "nnls"})
    text = " ".join(
        "".join(Reader(page(audit_record.model_copy(update={"verification": None, "recipe": None, "decomposition": found}))).text).split()
    )
    assert "None of the 6 atoms of the dictionary is in the target." in text
    assert "The method nnls makes no test" in text
    assert "Verification" not in text
    assert "Recipe" not in text


def test_recipes_of_other_kinds(audit_record: Audit) -> None:
    def shown(**keys: object) -> str:
        assert audit_record.recipe
        recipe = audit_record.recipe.model_copy(update=keys)
        return " ".join("".join(Reader(page(audit_record.model_copy(update={"recipe": recipe}))).text).split())

    none = shown(answer="none of these", says="Nothing makes it.", method=None, configuration=None, proof=None, rivals=[], identical_share=None)
    assert "Nothing makes it. What was tried" in none
    proof = Proof(reconstruction_error=0.1, explained=0.98, telling=0.97, decoys={"code -> law": 0.4})
    masks = shown(method="dare_linear", configuration=None, proof=proof, identical_share=None, rivals=[])
    assert (
        "98% of the changed weights are explained to the last bit, 97% of those that tell; with an absent atom in place of a present one 40%" in masks
    )
    assert "its masks were drawn at random, and read off" in masks
    unknown = Unknown(share=0.12, norm=1.0, nature="an adapter of rank 8")
    part = shown(answer="part of a recipe", says="code, and something else.", unknown=unknown, configuration=None)
    assert "an adapter of rank 8: 12% of the squared norm" in part
    call = shown(method="peft:svd", configuration=None, call={"adapters": ["code"], "weights": [0.5]})
    assert 'add_weighted_adapter(adapters=["code"], weights=[0.5])' in call


def test_the_folder(audit_record: Audit, tmp_path: Path) -> None:
    write_audit(audit_record, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} >= {"index.html", "audit.json", "bom.cdx.json", "decomposition.json", "RECIPE.yml", "figures"}
    assert json.loads((tmp_path / "audit.json").read_text())["schema"] == "unmerge/audit/1"
    drawings = {path.stem: ET.parse(path).getroot() for path in (tmp_path / "figures").iterdir()}
    assert drawings.keys() >= {"coefficients-code", "coefficients-_b_style__b_", "doses-maths", "limits", "matrix"}
    for drawing in drawings.values():
        assert drawing.tag == "{http://www.w3.org/2000/svg}svg"
        assert "--heat" in (drawing[0].text or "")
    again = Audit.model_validate_json((tmp_path / "audit.json").read_text())
    assert (tmp_path / "index.html").read_text() == page(again)


def test_a_large_model_fits(audit_record: Audit) -> None:
    """Eighty layers of seven modules, fourteen components, hardly two values alike: the page stays below two megabytes."""
    tensors = [f"model.layers.{layer}.self_attn.m{module}_proj.weight" for layer in range(80) for module in range(7)]
    one = audit_record.decomposition.components[0]
    components = [
        one.model_copy(
            update={
                "name": f"adapter-{place}",
                "group": [],
                "by_tensor": {name: (7919 * place + 104729 * row) % 65537 / 65537 for row, name in enumerate(tensors)},
            }
        )
        for place in range(14)
    ]
    dictionary = {component.name: audit_record.decomposition.target for component in components}
    licences = [audit_record.licences.licences[2].model_copy(update={"of": component.name}) for component in components]
    large = audit_record.model_copy(
        update={
            "decomposition": audit_record.decomposition.model_copy(update={"components": components, "dictionary": dictionary}),
            "licences": audit_record.licences.model_copy(update={"licences": licences}),
        }
    )
    html = page(large)
    assert len(html.encode()) < 2_000_000
    reader = Reader(html)
    assert "audit.json" in reader.values("href")
    assert "coefficient-by-tensor.csv" in reader.values("download")
    assert len(reader.values("data-at")) >= 14 * len(tensors)


def test_modules_are_in_order() -> None:
    names = ["model.layers.10.mlp.up.weight", "model.layers.2.mlp.up.weight", "model.layers.2.attn.up.weight", "model.norm.weight"]
    modules = Modules.of(names, [])
    assert modules.layers == ("2", "10", "rest")
    assert modules.kinds == ("attn.up", "mlp.up", "model.norm")
    assert modules.place[1, 1] == [names[0]]
    experts = Modules.of([f"model.layers.0.mlp.experts.{expert}.up.weight" for expert in range(3)], [])
    assert len(experts.place[0, 0]) == 3


def test_words() -> None:
    assert [counted(number, "atom") for number in (0, 1, 2, 13)] == ["no atom" + "s", "one atom", "two atoms", "13 atoms"]
    assert [listed(names) for names in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == ["", "a", "a and b", "a, b and c"]
    assert [percent(share) for share in (0, 0.00001, 0.0003, 0.169, 0.9, 0.99999, 1)] == [
        "0%",
        "less than 0.01%",
        "0.03%",
        "17%",
        "90%",
        "99.99%",
        "100%",
    ]
    assert [p_value(value) for value in (None, 0.5, 0.004, 1e-36)] == ["", "0.50", "4e-3", "1e-36"]


def test_the_policy_allows_this_script_alone(html: str) -> None:
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', html)
    assert policy
    assert "default-src 'none'" in policy[1]
    assert "script-src 'sha256-" in policy[1]
    assert html.count("<script") == 1
