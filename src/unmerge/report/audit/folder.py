"""The audit's folder: the record, the page, the bill of materials, the recipe and the drawings, all from the record."""

from __future__ import annotations

import re
from pathlib import Path

from unmerge.auditing import Audit
from unmerge.auditing.record import RECORD
from unmerge.auditing.run import DECOMPOSITION, VERIFICATION
from unmerge.auditing.run import RECIPE as RECIPE_RECORD
from unmerge.core.records import write_json, write_text
from unmerge.report.audit.drawings import drawings
from unmerge.report.audit.page import drawing_style, page, recipe_text
from unmerge.report.audit.svg import standalone
from unmerge.report.bill import FILE as BILL
from unmerge.report.bill import bill_of_materials, written

#: what is better not in the name of a file
_NOT_PLAIN = re.compile(r"[^\w.-]")
PAGE, RECIPE, FIGURES = "index.html", "RECIPE.yml", "figures"


def write_audit(audit: Audit, folder: Path) -> None:
    """Draw everything; each file is written atomically.

    Raises:
        MissingExtra: the extra ``audit`` is not installed.
    """
    files = {BILL: written(bill_of_materials(audit)), PAGE: page(audit)}
    if recipe := recipe_text(audit):
        files[RECIPE] = recipe
    for name, svg in drawings(audit).items():
        files[f"{FIGURES}/{_NOT_PLAIN.sub('_', name)}.svg"] = standalone(svg, drawing_style())
    write_json(folder / RECORD, audit)
    write_json(folder / DECOMPOSITION, audit.decomposition)
    if audit.recipe:
        write_json(folder / RECIPE_RECORD, audit.recipe)
    if audit.verification:
        write_json(folder / VERIFICATION, audit.verification)
    for name, text in files.items():
        write_text(folder / name, text)
