"""The JSON schema of ``audit.json``; it lies beside this file, for those who read records without this package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from unmerge.auditing.record import SCHEMA, Audit

FILE = Path(__file__).with_name("audit-1.schema.json")


def schema() -> dict[str, Any]:
    """The schema (draft 2020-12) that every record follows."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:{SCHEMA.replace('/', ':')}",
        **Audit.model_json_schema(mode="serialization"),
    }
