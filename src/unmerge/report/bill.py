"""The bill of materials as CycloneDX 1.6 writes it (ECMA-424): the target as a machine-learning model, its base and components as its pedigree.

https://cyclonedx.org/docs/1.6/json/. Made from the record alone: the same record gives the same bytes, serial number and time included.
What the standard has no key for (coefficients, p-values, detection limits) is in properties named ``unmerge:...``.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from unmerge.auditing import Audit
from unmerge.auditing.licences import Licence
from unmerge.core.errors import need
from unmerge.core.records import Source, fingerprint
from unmerge.decomposition.result import Component
from unmerge.report.identity import called, kinship

FILE = "bom.cdx.json"
_TARGET, _BASE = "target", "base"

#: an address as the standard's schema takes it
_ADDRESS = re.compile(r"https?://[\w.~:/?#@!$&'()*+,;=%-]+", re.ASCII)
Entry = dict[str, Any]


def bill_of_materials(audit: Audit) -> Entry:
    """The bill as JSON data."""
    found = audit.decomposition
    serial = uuid.uuid5(uuid.NAMESPACE_URL, fingerprint(audit.model_dump(mode="json", exclude={"gates"})))
    ancestors = [_base(audit), *(_component(audit, component) for component in found.components)]
    target = {
        **_model(_TARGET, audit.name, found.target, _licence(audit, "target", audit.name)),
        "description": "A fine-tuned or merged model, taken apart by its weights.",
        "pedigree": {"ancestors": ancestors, "notes": _notes(audit)},
        "modelCard": _model_card(audit),
        "properties": _properties(
            {
                "unmerge:reconstruction-error": found.reconstruction_error,
                "unmerge:unexplained-share": found.unexplained.share,
                "unmerge:rounding-share": found.unexplained.rounding_share,
                "unmerge:unknown-rank": found.unexplained.rank,
                "unmerge:unknown-components": found.unexplained.components,
                "unmerge:merge-method": audit.recipe.method if audit.recipe else None,
                "unmerge:recipe-identical-share": audit.recipe.identical_share if audit.recipe else None,
            }
        ),
    }
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{serial}",
        "version": 1,
        "metadata": {
            "timestamp": audit.made,
            "lifecycles": [{"phase": "post-build"}],
            "tools": {"components": [{"type": "application", "name": "unmerge", "version": audit.environment.versions.get("unmerge", "")}]},
            "component": target,
            "properties": _properties({"unmerge:command": " ".join(audit.environment.command)}),
        },
        "compositions": [{"aggregate": "incomplete" if found.unexplained.components else "unknown", "assemblies": [_TARGET]}],
    }


def written(bill: Entry) -> str:
    """The bill as text, valid against the standard's own schema.

    Raises:
        MissingExtra: the extra ``audit`` is not installed.
    """
    text = json.dumps(bill, indent=2, ensure_ascii=False) + "\n"
    schema = need("cyclonedx.schema", "audit")
    validation = need("cyclonedx.validation.json", "audit")
    trouble = validation.JsonStrictValidator(schema.SchemaVersion.V1_6).validate_str(text)
    assert trouble is None, f"the bill of materials is not valid: {trouble}"
    return text


def _model(reference: str, name: str, source: Source, licence: Licence | None) -> Entry:
    """A model or an adapter; its hash is of its weights, where they are one file, and of every file in its properties."""
    weights = [digest for file, digest in source.sha256.items() if file.endswith(".safetensors")]
    entry: Entry = {"type": "machine-learning-model", "bom-ref": reference, "name": name}
    if len(weights) == 1:
        entry["hashes"] = [{"alg": "SHA-256", "content": weights[0]}]
    if licence and (stated := _licences(licence)):
        entry["licenses"] = stated
    entry["properties"] = _properties({f"unmerge:sha256:{Path(file).name}": digest for file, digest in source.sha256.items()})
    return entry


def _base(audit: Audit) -> Entry:
    name = audit.base_name or "base, not recorded"
    source = audit.decomposition.base or Source(path=name, sha256={})
    return _model(_BASE, name, source, _licence(audit, "base", name))


def _component(audit: Audit, component: Component) -> Entry:
    """A component. A relative has no hashes and no licence of the atom's: they stand with the atom, which is a variant of it."""
    reference, source = f"component:{component.name}", audit.decomposition.dictionary[component.name]
    if component.identity == "relative":
        atom = _model(f"variant:{component.name}", component.name, source, _licence(audit, "relative", component.name))
        entry = {**_model(reference, called(component), Source(path="", sha256={}), None), "pedigree": {"variants": [atom]}}
    else:
        entry = _model(reference, component.name, source, _licence(audit, "component", component.name))
    low, high = component.interval or (None, None)
    nearest, furthest = component.similarity_interval or (None, None)
    measured = audit.verified(component.name)
    values = {
        "unmerge:coefficient": component.coefficient,
        "unmerge:coefficient-low": low,
        "unmerge:coefficient-high": high,
        "unmerge:coefficient-by-part": [part.model_dump(mode="json") for part in component.profile] or None,
        "unmerge:share": component.share,
        "unmerge:p-value": component.p_value,
        "unmerge:q-value": component.q_value,
        "unmerge:containment": component.containment,
        "unmerge:identity": component.identity,
        "unmerge:relative-of": component.name if component.identity == "relative" else None,
        "unmerge:similarity": component.similarity,
        "unmerge:similarity-low": nearest,
        "unmerge:similarity-high": furthest,
        "unmerge:verdict": measured.verdict if measured else None,
    }
    entry["properties"] += _properties(values)
    entry["properties"] += [{"name": "unmerge:cannot-be-told-from", "value": name} for name in component.group]
    entry["evidence"] = {"identity": [_identity(component)]}
    return entry


def _identity(component: Component) -> Entry:
    """How the component was recognised: by comparing weights with weights. Its name is certain as far as the test is, and as it is the only one."""
    certain = 0.0 if component.q_value is None else 1 - component.q_value
    confidence = certain / (1 + len(component.group) + (component.identity == "undecided"))
    what = "" if component.containment is None else f"containment {component.containment:.4f}, "
    p_value = "not tested" if component.p_value is None else f"p = {component.p_value:.2g}"
    value = f"coefficient {component.coefficient:.5g}, {what}{p_value}"
    if means := kinship(component):
        value += f"; {means}"
    name = called(component) if component.identity == "relative" else component.name
    method = {"technique": "binary-analysis", "confidence": confidence, "value": value}
    return {"field": "name", "confidence": confidence, "concludedValue": name, "methods": [method]}


def _licences(licence: Licence) -> list[Entry]:
    """Identifiers that SPDX has as such, others by name."""
    if licence.name:
        link = {"url": licence.link} if licence.link and _ADDRESS.fullmatch(licence.link) else {}  # cards also hold names of files there
        return [{"license": {"name": licence.name, **link}}]
    if len(licence.spdx) == len(licence.stated):
        return [{"license": {"id": identifier}} for identifier in licence.spdx]
    return [{"license": {"name": identifier}} for identifier in licence.stated]


def _licence(audit: Audit, role: str, name: str) -> Licence | None:
    return next((licence for licence in audit.licences.licences if (licence.role, licence.of) == (role, name)), None)


def _notes(audit: Audit) -> str:
    left = audit.decomposition.unexplained
    unknown = f", of about {left.components} unknown components or more" if left.components else ""
    return f"Found by comparing weights. {left.share:.2%} of the squared norm of the change is not explained{unknown}."


def _model_card(audit: Audit) -> Entry:
    card: Entry = {}
    if audit.verification:
        metrics = [
            {"type": f"{task.scorer}, {task.items} items", "value": f"{task.before:.4f}", "slice": task.name} for task in audit.verification.tasks
        ]
        card["quantitativeAnalysis"] = {"performanceMetrics": metrics}
    findings = [finding.text for finding in audit.licences.findings]
    if findings or audit.decomposition.warnings:
        card["considerations"] = {"technicalLimitations": [*audit.decomposition.warnings, *findings]}
    return card


def _properties(values: Mapping[str, object]) -> list[dict[str, str]]:
    return [{"name": name, "value": value if isinstance(value, str) else json.dumps(value)} for name, value in _given(values)]


def _given(values: Mapping[str, object]) -> Iterable[tuple[str, object]]:
    return ((name, value) for name, value in values.items() if value is not None)
