"""Write docs/rounding-measured.md from the record of `make rounding`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unmerge.core.records import read_json, write_text
from unmerge_lab.report.study_tables import table

Outcome = dict[str, Any]
UNKNOWN = "unknown"


def main() -> None:
    """Read the record, write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, default=Path("runs/rounding.json"))
    parser.add_argument("--out", type=Path, default=Path("docs/rounding-measured.md"))
    arguments = parser.parse_args()
    record = read_json(arguments.json, "the record of rounding; run 'make rounding'")
    outcomes: list[Outcome] = record["outcomes"]
    known, mixed = ([outcome for outcome in outcomes if (UNKNOWN in outcome["acted"]) == is_mixed] for is_mixed in (False, True))
    sections = [
        "# Rounding, measured",
        (
            "Made by `make rounding`: a small llama-like model, adapters of rank 4 with PEFT, merged by the libraries themselves at "
            "weights of .35 to 1.2, with changes of half a step to 20 steps of the grid (root mean square of the whole merge). "
            "[How it works](certificate.md#the-order-of-rounding)."
        ),
        (
            "*Error*: the largest relative error of a coefficient, over the components that were found. *Inside*: how many lie in their "
            "95% intervals. *Order*: right, tied with others (the right one among them), or wrong. *Missed* and *false* are components."
        ),
        f"{len(outcomes)} of the {record['planned']} targets are measured.",
        "## Known components only",
        _by(known, "producer"),
        _by(known, "steps"),
        "## Beside an unknown component",
        _by(mixed, "producer"),
        _by(mixed, "steps"),
    ]
    write_text(arguments.out, "\n\n".join(sections) + "\n")


def _by(outcomes: Sequence[Outcome], key: str) -> str:
    values = dict.fromkeys(outcome["target"][key] for outcome in outcomes)
    ordered = list(values) if key == "producer" else sorted(values)
    rows = [_row(f"{value}", [outcome for outcome in outcomes if outcome["target"][key] == value]) for value in ordered]
    titles = ["merge" if key == "producer" else "steps", "targets", "components", "missed", "false", "error", "median", "inside", "order"]
    return table(titles, [*rows, _row("all", outcomes)])


def _row(name: str, outcomes: Sequence[Outcome]) -> list[str]:
    found = [
        (outcome["components"][atom], value)
        for outcome in outcomes
        for atom, value in outcome["acted"].items()
        if atom != UNKNOWN and atom in outcome["components"]
    ]
    truth = sum(atom != UNKNOWN for outcome in outcomes for atom in outcome["acted"])
    false = sum(atom not in outcome["acted"] for outcome in outcomes for atom in outcome["components"])
    errors = sorted(abs(entry[0] / value - 1) for entry, value in found)
    inside = sum(entry[1] is not None and entry[1] <= value <= entry[2] for entry, value in found)
    return [
        name,
        str(len(outcomes)),
        str(truth),
        str(truth - len(found)),
        str(false),
        f"{errors[-1]:.3%}" if errors else "",
        f"{errors[len(errors) // 2]:.3%}" if errors else "",
        f"{inside} of {len(found)}",
        _orders(outcomes),
    ]


def _orders(outcomes: Sequence[Outcome]) -> str:
    """How many are right, tied and wrong; nothing where something unknown leaves none to be told."""
    told = [outcome for outcome in outcomes if UNKNOWN not in outcome["acted"]]
    right = sum(outcome["order"] == outcome["wanted order"] for outcome in told)
    tied = sum(outcome["wanted order"] in outcome["ties"] for outcome in told)
    return f"{right} right, {tied} tied, {len(told) - right - tied} wrong" if told else ""


if __name__ == "__main__":
    main()
