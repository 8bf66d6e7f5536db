"""Write docs/certificate-measured.md from the records of `make certificate` and `make full-finetunes`."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unmerge.core.records import read_json, write_text
from unmerge_lab.report.study_tables import table

#: what each row of the benchmark shows, in the words of a claim
CLAIMS = {
    "calibration": "Calibration: targets of unknown adapters alone, so that every rejection is a false one",
    "large": "A large model's statistics: atoms at cosine .15, bfloat16 that leaves most of the weights unchanged",
    "duplicates": "Near duplicates of a present atom in the dictionary",
    "many": "A dictionary of 200 atoms, five of them in the target",
    "limits": "Detection limits: atoms planted at the stated limit, and at twice of it",
}
_NUMBER = 4


def main() -> None:
    """Read the records, write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--certificate", type=Path, default=Path("runs/certificate.json"))
    parser.add_argument("--full-finetunes", type=Path, default=Path("runs/full_finetunes.json"))
    parser.add_argument("--out", type=Path, default=Path("docs/certificate-measured.md"))
    arguments = parser.parse_args()
    rows = read_json(arguments.certificate, "the certificate's record; run 'make certificate'")["rows"]
    sections = [
        "# The certificate, measured",
        "Made by `make certificate` and `make full-finetunes`; [the study](study.md) has the merges of the zoo.",
    ]
    for name, claim in CLAIMS.items():
        if name in rows:
            sections += [f"## {claim}", _row(rows[name])]
    if arguments.full_finetunes.exists():
        sections += _full(read_json(arguments.full_finetunes, "the record of full fine-tunes"))
    write_text(arguments.out, "\n\n".join(sections) + "\n")


def _row(row: dict[str, Any]) -> str:
    """Cases as rows of a table; what is said once, as a list."""
    cases = {name: value for name, value in row.items() if isinstance(value, dict)}
    said = {name: value for name, value in row.items() if name not in cases}
    keys = list(dict.fromkeys(key for case in cases.values() for key in case))
    parts = ["\n".join(f"- {name}: {_text(value)}" for name, value in said.items())]
    if cases:
        parts.append(table(["", *keys], [[name, *(_text(case.get(key)) for key in keys)] for name, case in cases.items()]))
    return "\n\n".join(parts)


def _full(record: dict[str, Any]) -> list[str]:
    """Precision, recall and share of perfect answers of full fine-tunes and of adapters, by correlation."""
    sections = ["## Full fine-tunes as atoms, tested by correlation", "Precision / recall / share of perfect answers."]
    for atoms in ("full fine-tunes", "adapters"):
        rows = record[atoms]["rows"]
        spaces = list(rows[0]["spaces"])
        cells = [
            [
                row["group"],
                row["method"],
                str(row["targets"]),
                *(" / ".join(_text(row["spaces"][space].get(key)) for key in ("precision", "recall", "perfect")) for space in spaces),
                _text(row["skills kept"]),
            ]
            for row in rows
        ]
        sections += [f"### {atoms.capitalize()}", table(["group", "merge", "targets", *spaces, "skills kept"], cells)]
    return sections


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_text(inner)}" for name, inner in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return " .. ".join(_text(inner) for inner in value)
    if isinstance(value, float):
        return re.sub(r"^(-?)0\.", r"\1.", f"{value:.{_NUMBER}g}") if value != int(value) else f"{int(value)}"
    return "" if value is None else str(value)


if __name__ == "__main__":
    main()
