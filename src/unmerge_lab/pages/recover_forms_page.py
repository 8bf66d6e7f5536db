"""Write docs/recover-forms.md from the record of `make recover-forms`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from unmerge.core.records import read_json, write_text
from unmerge_lab.report.study_tables import table

#: what a verdict of unmerge_lab/benchmarks/recover_forms.py means
VERDICTS = {
    "identical": "a recipe that makes at least 99.9% of the changed weights again",
    "read off": "the method, and weights and densities within .02: its masks are random, so that no recipe makes them again",
    "method only": "the method, with weights or densities further off",
    "part": "what is known, beside something that is left",
    "nothing": "no recipe",
    "wrong": "a recipe that does not make the target",
    "no answer": "stopped at the limit of processor time",
    "not made": "mergekit refuses to make the target",
}


def main() -> None:
    """Read the record, write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, default=Path("runs/recover-forms.json"))
    parser.add_argument("--out", type=Path, default=Path("docs/recover-forms.md"))
    arguments = parser.parse_args()
    record = read_json(arguments.json, "the record of recover-forms; run 'make recover-forms'")
    outcomes: list[dict[str, Any]] = record["outcomes"]
    seconds = [outcome["processor_seconds"] for outcome in outcomes if "processor_seconds" in outcome]
    verdicts = dict.fromkeys(outcome["verdict"] for outcome in outcomes)
    sections = [
        "# Recover, by form of configuration",
        (
            "Made by `make recover-forms` on the embedded zoo: the forms in which people write mergekit configurations "
            "(`src/unmerge_lab/benchmarks/recover_forms.yml`): methods, dtypes, gradients, filters, slices, adapters by "
            "`base+adapter`. Seconds are the processor's, one thread, without the time that libraries "
            "take to load; memory is the largest. [How it works](recover.md)."
        ),
        table(["form", "answer", "method", "identical or explained", "seconds", "MB"], [_row(outcome) for outcome in outcomes]),
        "\n".join(f"- *{name}*: {VERDICTS[name]}." for name in VERDICTS if name in verdicts),
        f"{len(outcomes)} of {record['planned']} forms; {max(seconds):.0f} seconds at most, {sorted(seconds)[len(seconds) // 2]:.0f} in the median.",
    ]
    write_text(arguments.out, "\n\n".join(sections) + "\n")


def _row(outcome: dict[str, Any]) -> list[str]:
    found, proof = outcome.get("found") or {}, outcome.get("proof") or {}
    share = found.get("identical_share") if found.get("identical_share") is not None else proof.get("explained")
    return [
        outcome["form"],
        outcome["verdict"],
        found.get("method") or "",
        "" if share is None else f"{share:.4f}",
        f"{outcome['processor_seconds']:.0f}" if "processor_seconds" in outcome else "",
        str(outcome.get("peak_mb", "")),
    ]


if __name__ == "__main__":
    main()
