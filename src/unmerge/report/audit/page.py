"""The page: one file that holds all it shows, made from the record alone.

Nothing is fetched: style, script, drawings and downloads are in the file, and its content security policy forbids the rest.
"""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

import yaml

from unmerge.auditing import Audit
from unmerge.auditing.record import RECORD
from unmerge.core.errors import need
from unmerge.report.audit import answer, charts, tables, words
from unmerge.report.audit.charts import Part
from unmerge.report.audit.drawings import drawings, looks_of
from unmerge.report.audit.heat_map import deepest
from unmerge.report.audit.svg import clean, inline
from unmerge.report.audit.table import data_uri
from unmerge.report.identity import called, kinship

#: cells of a table that is only given as a file, and characters of a record that is only beside the page
_LONG, _LARGE = 2000, 400_000
#: an overlap of components that is worth a place in the bar
_OVERLAP = 0.002
_HERE = Path(__file__).parent


def page(audit: Audit) -> str:
    """The page as HTML."""
    jinja = need("jinja2", "audit")
    environment = jinja.Environment(
        loader=jinja.FileSystemLoader(_HERE), autoescape=True, undefined=jinja.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"percent": words.percent, "p_value": words.p_value, "counted": words.counted, "called": called, "kinship": kinship}
    html: str = environment.get_template("page.html.j2").render(**_content(audit))
    return clean(html)


def drawing_style() -> str:
    """The style of the drawings, in the page and beside it."""
    return (_HERE / "drawing.css").read_text(encoding="utf-8")


def _content(audit: Audit) -> dict[str, Any]:
    found, verification, recipe = audit.decomposition, audit.verification, audit.recipe
    script = (_HERE / "page.js").read_text(encoding="utf-8")
    least, largest = charts.reach(found.components)
    looks, record = looks_of(audit), audit.model_dump_json()
    return {
        "audit": audit,
        "found": found,
        "verification": verification,
        "recipe": recipe,
        "recipe_text": recipe_text(audit),
        "phrases": answer.answer(audit),
        "sentence": answer.sentence(audit),
        "tiles": answer.tiles(audit),
        "parts": _parts(audit, looks),
        "looks": looks,
        "least": least,
        "largest": largest,
        "verdict_looks": tables.LOOKS,
        "deepest": deepest(found.components),
        "bars": [inline(charts.coefficient_bar(component, least, largest, look)) for component, look in zip(found.components, looks, strict=True)],
        "licence_of": tables.licence_words(audit),
        "drawn": {name: inline(svg) for name, svg in drawings(audit).items()},
        "tables": _tables(audit),
        "versions": {"python": audit.environment.python, **audit.environment.versions},
        "record": data_uri(record, "application/json") if len(record) < _LARGE else RECORD,
        "long": _LONG,
        "recipe_link": data_uri(recipe_text(audit), "application/yaml"),
        "style": drawing_style() + (_HERE / "page.css").read_text(encoding="utf-8"),
        "script": script,
        "script_hash": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    }


def recipe_text(audit: Audit) -> str:
    """The mergekit configuration that makes the target; empty where there is none."""
    configuration = audit.recipe.configuration if audit.recipe else None
    return yaml.safe_dump(configuration, sort_keys=False, allow_unicode=True) if configuration else ""


def _tables(audit: Audit) -> dict[str, Any]:
    found, verification = audit.decomposition, audit.verification
    made = {
        "components": tables.components(audit),
        "profile": tables.profile(found),
        "absent": tables.absent(found),
        "by_tensor": tables.by_tensor(found),
        "licences": tables.licences(audit),
        "files": tables.files(audit),
        "left_out": tables.left_out(found),
        "proof": tables.proof(audit.recipe) if audit.recipe else None,
        "rivals": tables.rivals(audit.recipe) if audit.recipe else None,
    }
    if verification:
        made |= {table.__name__: table(verification) for table in (tables.verdicts, tables.matrix, tables.doses, tables.controls, tables.ways)}
    return made


def _parts(audit: Audit, looks: list[str]) -> list[Part]:
    """The target's squared norm: each component's own, what components share, and what is unexplained."""
    found = audit.decomposition
    own = [Part(called(component), component.share**2, look) for component, look in zip(found.components, looks, strict=True)]
    rounding = min(found.unexplained.rounding_share or 0.0, found.unexplained.share)
    left = "left to the recipe" if audit.proved else "unexplained"
    rest = [Part(left, found.unexplained.share - rounding, "rest"), Part("rounding", rounding, "noise")]
    shared = 1 - sum(part.share for part in [*own, *rest])
    if shared > _OVERLAP:
        own.append(Part("shared by several", shared, "shared"))
    return [part for part in [*own, *rest] if part.share > 0]
