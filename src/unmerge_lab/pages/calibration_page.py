"""Write docs/calibration-measured.md from the records of `make calibration` and `make families`."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unmerge.core.records import read_json, write_text
from unmerge_lab.report.study_tables import table

_PARTS = {"relation": "Closest relative in the target", "atoms": "Atoms", "modules": "Modules", "dtype": "Precision"}
#: families of fewer adapters than this say nothing about a share
_LEAST = 50


def main() -> None:
    """Read the records, write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--families", type=Path, default=Path("runs/families.json"))
    parser.add_argument("--calibration", type=Path, default=Path("runs/calibration.json"))
    parser.add_argument("--out", type=Path, default=Path("docs/calibration-measured.md"))
    arguments = parser.parse_args()
    families = read_json(arguments.families, "what the families are like; run 'make families'")
    figures = read_json(arguments.calibration, "the record of calibration; run 'make calibration'")
    sections = ["# Calibration on families of adapters, measured", "Made by `make families` and `make calibration`."]
    sections += [*_families(families), *_rejections(figures), *_claims(figures), *_present(figures)]
    write_text(arguments.out, "\n\n".join(sections) + "\n")


def _families(figures: Mapping[str, Any]) -> list[str]:
    rows = [[kind, str(found["pairs"]), *map(_number, found["quantiles"])] for kind, found in figures["cosines"].items()]
    rows.append(["leading direction's share of the square", "", *map(_number, figures["leading direction"])])
    said = (
        "Each dictionary holds a training run saved at several steps and continued, the same data from other seeds, a shared seed on other data,"
        " one author's settings on several tasks, and unrelated adapters. All were trained on the embedded zoo's base. Absolute cosines of two"
        " adapters of one dictionary, by their closest relation:"
    )
    return [
        f"## The families: {figures['dictionaries']} dictionaries, {figures['adapters']} adapters",
        said,
        table(["", "pairs", "least", "a quarter", "median", "three quarters", "largest"], rows),
    ]


def _rejections(figures: Mapping[str, Any]) -> list[str]:
    said = (
        "In brackets the interval in which 95% of such shares lie where p-values are uniform. Atoms of one target are not independent, so that"
        " the intervals are narrower than they should be."
    )
    sections = ["## Absent atoms: shares of p-values below three levels", said]
    for group, splits in figures["rejections"].items():
        rows = []
        for name, row in _rows(splits):
            if row["p-values"] >= _LEAST or name == "all":
                rows.append([name, str(row["p-values"]), *(_share(row.get(level)) for level in ("0.05", "0.01", "0.001"))])
        sections += [f"### {group.capitalize()} targets", table(["", "p-values", "below .05", "below .01", "below .001"], rows)]
    return sections


def _claims(figures: Mapping[str, Any]) -> list[str]:
    sections = [
        "## Claims of atoms that are not in the target",
        f"In {figures['targets with a false exact claim']} of {sum(figures['targets'].values())} targets an atom is claimed exactly and not there.",
        f"{len(figures['failures'])} decompositions failed.",
    ]
    keys = ("atoms", "named", "exact", "relative", "undecided", "untested")
    for group, splits in figures["absent"].items():
        rows = [[name, *(str(row[key]) for key in keys)] for name, row in _rows(splits, ("relation",))]
        sections += [f"### {group.capitalize()} targets", table(["", *keys], rows)]
    return sections


def _present(figures: Mapping[str, Any]) -> list[str]:
    sections = ["## Atoms that are in the target, by their closest relative in the dictionary"]
    keys = ("atoms", "named", "exact alone", "in a group", "relative", "undecided", "untested")
    for group, splits in figures["present"].items():
        rows = [
            [name, *(str(row[key]) for key in keys), f"{row['interval holds']} of {row['with an interval']}"]
            for name, row in _rows(splits, ("relation", "modules", "dtype"))
        ]
        sections += [f"### {group.capitalize()} targets", table(["", *keys, "interval holds"], rows)]
    return sections


def _rows(splits: Mapping[str, Any], parts: tuple[str, ...] = tuple(_PARTS)) -> list[tuple[str, Mapping[str, Any]]]:
    return [("all", splits["all"]), *((f"{_PARTS[part]}: {value}", row) for part in parts for value, row in splits[part].items())]


def _share(found: Mapping[str, float] | None) -> str:
    return "" if found is None else f"{_number(found['share'])} [{_number(found['low'])}, {_number(found['high'])}]"


def _number(value: float) -> str:
    return re.sub(r"^(-?)0\.", r"\1.", f"{value:.4f}")


if __name__ == "__main__":
    main()
