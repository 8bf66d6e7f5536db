"""The schema that ships is the model's, and records follow it."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest

from unmerge.auditing import Audit
from unmerge.auditing.schema import FILE, schema


@pytest.fixture(scope="module")
def shipped() -> dict[str, Any]:
    raw: dict[str, Any] = json.loads(FILE.read_text())
    jsonschema.Draft202012Validator.check_schema(raw)
    return raw


def test_it_is_the_models_own(shipped: dict[str, Any]) -> None:
    assert shipped == schema(), "run: make audit-schema"
    assert shipped["$id"] == "urn:unmerge:audit:1"
    assert shipped["properties"]["schema"]["const"] == "unmerge/audit/1"


def test_a_record_follows_it(shipped: dict[str, Any], audit_record: Audit) -> None:
    raw = json.loads(audit_record.model_dump_json())
    jsonschema.validate(raw, shipped)
    jsonschema.validate(raw | {"recipe": None, "verification": None}, shipped)
    assert Audit.model_validate(raw) == audit_record


@pytest.mark.parametrize(
    ("key", "value"), [("schema", "unmerge/audit/2"), ("name", None), ("licences", {}), ("decomposition", {}), ("gates", [{"failed": "no"}])]
)
def test_another_record_does_not(shipped: dict[str, Any], audit_record: Audit, key: str, value: Any) -> None:
    raw = json.loads(audit_record.model_dump_json())
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(raw | {key: value}, shipped)
