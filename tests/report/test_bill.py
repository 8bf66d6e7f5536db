"""The bill of materials: valid by the standard's own schema, and it says what the record says."""

from __future__ import annotations

import json
from typing import Any

import pytest

from unmerge.auditing import Audit
from unmerge.report.bill import bill_of_materials, written


@pytest.fixture(scope="module")
def bill(audit_record: Audit) -> dict[str, Any]:
    raw: dict[str, Any] = json.loads(written(bill_of_materials(audit_record)))
    return raw


def properties(entry: dict[str, Any]) -> dict[str, str]:
    return {one["name"]: one["value"] for one in entry["properties"]}


def test_the_target_is_a_model_with_its_ancestors(bill: dict[str, Any]) -> None:
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    target = bill["metadata"]["component"]
    assert (target["type"], target["name"]) == ("machine-learning-model", "merged")
    assert target["hashes"] == [{"alg": "SHA-256", "content": "0" * 63 + "a"}]
    assert "licenses" not in target
    ancestors = target["pedigree"]["ancestors"]
    assert [ancestor["name"] for ancestor in ancestors] == ["base", "code", "<b>style</b>", "maths"]
    assert all(ancestor["type"] == "machine-learning-model" for ancestor in ancestors)
    references = [target["bom-ref"], *(ancestor["bom-ref"] for ancestor in ancestors)]
    assert len(set(references)) == len(references)
    assert bill["compositions"] == [{"aggregate": "incomplete", "assemblies": [target["bom-ref"]]}]


def test_a_component_with_its_evidence(bill: dict[str, Any], audit_record: Audit) -> None:
    _, code, _, maths = bill["metadata"]["component"]["pedigree"]["ancestors"]
    assert code["hashes"] == [{"alg": "SHA-256", "content": "c" * 64}]
    assert code["licenses"] == [{"license": {"id": "GPL-3.0"}}]
    held = properties(code)
    assert float(held["unmerge:coefficient"]) == audit_record.decomposition.components[0].coefficient
    assert (float(held["unmerge:coefficient-low"]), float(held["unmerge:coefficient-high"])) == (0.78, 0.81)
    assert held["unmerge:verdict"] == "verified"
    (identity,) = code["evidence"]["identity"]
    assert (identity["concludedValue"], identity["confidence"]) == ("code", 1.0)
    assert identity["methods"][0]["technique"] == "binary-analysis"
    assert maths["licenses"] == [{"license": {"name": "llama3"}}]
    assert properties(maths)["unmerge:cannot-be-told-from"] == "maths-v2"
    assert maths["evidence"]["identity"][0]["confidence"] == 0.5


def test_what_is_not_known_is_said(bill: dict[str, Any]) -> None:
    target = bill["metadata"]["component"]
    assert properties(target)["unmerge:unknown-components"] == "1"
    assert properties(target)["unmerge:merge-method"] == "ties"
    assert "12" in target["pedigree"]["notes"]
    limits = target["modelCard"]["considerations"]["technicalLimitations"]
    assert "tiny records the base other, not base" in limits
    assert any("lets nobody add terms" in limit for limit in limits)
    metrics = target["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]
    assert {metric["slice"]: metric["value"] for metric in metrics} == {"coding": "0.9688", "style": "1.0000", "sums": "0.8750", "copy": "1.0000"}


def test_the_same_record_gives_the_same_bytes(audit_record: Audit) -> None:
    again = Audit.model_validate_json(audit_record.model_dump_json())
    assert written(bill_of_materials(again)) == written(bill_of_materials(audit_record))
    later = bill_of_materials(audit_record.model_copy(update={"made": "2027-01-02T03:04:05+00:00"}))
    assert later["serialNumber"] != bill_of_materials(audit_record)["serialNumber"]


def test_a_bare_record(audit_record: Audit) -> None:
    """No recipe, no verification, no component, nothing unknown."""
    left = audit_record.decomposition.unexplained.model_copy(update={"components": 0})
    found = audit_record.decomposition.model_copy(update={"components": [], "warnings": [], "base": None, "unexplained": left})
    licences = audit_record.licences.model_copy(update={"findings": [], "licences": []})
    bare = audit_record.model_copy(update={"recipe": None, "verification": None, "decomposition": found, "licences": licences})
    raw = json.loads(written(bill_of_materials(bare)))
    assert [ancestor["name"] for ancestor in raw["metadata"]["component"]["pedigree"]["ancestors"]] == ["base"]
    assert raw["compositions"][0]["aggregate"] == "unknown"
    assert raw["metadata"]["component"]["modelCard"] == {}


def test_an_invalid_bill_is_not_written(audit_record: Audit) -> None:
    bill = bill_of_materials(audit_record)
    bill["metadata"]["component"]["type"] = "merged model"
    with pytest.raises(AssertionError, match="the bill of materials is not valid"):
        written(bill)


@pytest.mark.parametrize(
    ("link", "kept"), [("https://example.org/a?b#c", True), ("LICENSE file.txt", False), ("http://[", False), ("javascript:1", False)]
)
def test_a_licence_without_an_identifier(audit_record: Audit, link: str, kept: bool) -> None:
    """By its name, with its address where it has one: whatever a card holds, the bill stays valid."""
    licence = audit_record.licences.licences[2].model_copy(update={"stated": ["other"], "spdx": [], "name": "house <rules>", "link": link})
    licences = audit_record.licences.model_copy(update={"licences": [licence]})
    raw = json.loads(written(bill_of_materials(audit_record.model_copy(update={"licences": licences}))))
    code = raw["metadata"]["component"]["pedigree"]["ancestors"][1]
    assert code["licenses"] == [{"license": {"name": "house <rules>", **({"url": link} if kept else {})}}]
