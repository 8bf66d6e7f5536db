"""Write docs/verification-measured.md from the record of `make verification`."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unmerge.core.records import read_json, write_text
from unmerge_lab.report.study_tables import table

EVEN, UNEVEN = "task_arithmetic, linear", "ties, dare"
MERGES = ("task_arithmetic", "linear", "ties", "dare_linear", "dare_ties")


def main() -> None:
    """Read the record, write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--record", type=Path, default=Path("runs/verification.json"))
    parser.add_argument("--out", type=Path, default=Path("docs/verification-measured.md"))
    arguments = parser.parse_args()
    record = read_json(arguments.record, "the record of verifications; run 'make verification'")
    found = record["summary"]
    sections = [
        "# Verification, measured",
        "Made by `make verification`; [what the words mean](verify.md).",
        _what(record),
        "## Against what was asked for",
        _asked(record),
        "## By merge method",
        "Components whose skill scored at least .8 in the target. Changes are in shares of items, as least / mean / most over the components.",
        _by_merge(found),
        *_not_verified(found["not verified"]),
        "## Controls",
        *_controls(found["controls"]),
        "## Prediction",
        *_prediction(found["prediction"]),
        "## Ways to subtract",
        _ways(found),
        "## Every fall above .10",
        *_falls(found["falls"]),
        "## Versions",
        "```json\n" + json.dumps({"python": record["environment"]["python"], **record["environment"]["versions"]}, indent=2) + "\n```",
    ]
    write_text(arguments.out, "\n\n".join(sections) + "\n")


def _what(record: dict[str, Any]) -> str:
    found, targets = record["summary"], record["targets"]
    groups = ", ".join(f"{sum(target['group'] == group for target in targets)} {group}" for group in dict.fromkeys(t["group"] for t in targets))
    strangers = found["not in the target"]
    return (
        f"{found['targets']} targets of the zoo ({groups}), five merge methods, bfloat16 and float32; decomposed by the certificate over 10 atoms. "
        f"{found['components']} components were named, {len(strangers)} of them not in the target{': ' * bool(strangers)}{', '.join(strangers)}; "
        f"the skills of {found['measurable']} scored at least .8 before. 25 skills and 4 general tasks, 64 items each (32 of `facts`), exact match."
    )


def _asked(record: dict[str, Any]) -> str:
    found = record["summary"]
    even, uneven = found["merges"][EVEN], found["merges"][UNEVEN]
    controls, prediction, falls = found["controls"], found["prediction"], found["falls"]
    unexplained = sum(fall["explanation"].startswith("not explained") for fall in falls)
    rows = [
        [
            "task_arithmetic and linear: components verified",
            "all; the skill falls by at least 80% of its score",
            f"{even['verified']} of {even['measurable']}; the least fall is {_percent(even['least relative drop'])} of the score",
        ],
        ["ties, dare_linear, dare_ties: components verified", "at least 95%", f"{uneven['verified']} of {uneven['measurable']}"],
        [
            "other skills, mean absolute change: task_arithmetic and linear",
            "at most .03",
            f"mean {_number(even['others']['mean'])}, most {_number(even['others']['most'])}",
        ],
        [
            "other skills, mean absolute change: ties and dare",
            "at most .05",
            f"mean {_number(uneven['others']['mean'])}, most {_number(uneven['others']['most'])}",
        ],
        ["falls above .10", "listed and explained", f"{len(falls)} listed below, {unexplained} of them not explained"],
        ["general tasks", "at most .02", f"{_number(even['general']['most'])} and {_number(uneven['general']['most'])} at most"],
        ["controls verified", "none of 200", _control_counts(controls)],
        [
            "predicted against measured score of the removed skill, rank correlation",
            "at least .8",
            _ranks(prediction["all components"]),
        ],
        [
            "processor time of one condition over the bare forward passes",
            "at most 1.2",
            ", ".join(f"{_number(ratio)} ({dtype})" for dtype, ratio in record["cost"].items()),
        ],
    ]
    return table(["", "asked", "measured"], rows)


def _control_counts(controls: dict[str, Any]) -> str:
    absent = controls["absent atoms removed from them"]
    return (
        f"{controls['verified']} of {controls['subtractions']}; {controls['of them verified']} of {absent} more where nothing was named, "
        f"in which {controls['of them gone']} of {controls['skills of those targets']} skills were gone"
    )


def _ranks(row: dict[str, Any]) -> str:
    beside, alone = ((_number(row["mean over doses"][way]), _number(row["all doses"][way])) for way in ("predicted_beside", "predicted"))
    return (
        f"{beside[0]} over components (mean of the doses), {beside[1]} over components and doses; "
        f"from each adapter's dose-response alone {alone[0]} and {alone[1]}"
    )


def _by_merge(found: dict[str, Any]) -> str:
    keys = ("others", "others that the target has", "general")
    titles = ["merge", "targets", "named", "at .8 or more", "verified", "least fall", "others", "others at .8 or more", "general", "selectivity"]
    rows = []
    for merge in MERGES:
        row = found["merges"][merge]
        selectivity = row["selectivity"]
        rows.append(
            [
                merge,
                *(str(row[key]) for key in ("targets", "components", "measurable", "verified")),
                _percent(row["least relative drop"]),
                *(_spread(row[key]) for key in keys),
                f"{selectivity['least']:.0f} or more" if selectivity else "",
            ]
        )
    return table(titles, rows)


def _not_verified(lines: Sequence[dict[str, str]]) -> list[str]:
    if not lines:
        return []
    rows = [[line["target"], line["removed"], line["verdict"], line["because"]] for line in lines]
    return ["### Not verified", table(["target", "removed", "verdict", "because"], rows)]


def _controls(controls: dict[str, Any]) -> list[str]:
    kinds = [[kind, str(row["subtractions"]), str(row["verified"]), _number(row["largest fall"])] for kind, row in controls["by kind"].items()]
    nothing = (
        f"In {controls['targets where nothing is named']} targets nothing was named. "
        f"{controls['absent atoms removed from them']} atoms were removed from them all the same, {controls['of them verified']} verified; "
        f"of {controls['skills of those targets']} skills at .8 or more that these targets have, {controls['of them gone']} were gone."
    )
    return [
        "Removed in place of a component, as large as it, and scored on the component's skill.",
        table(["control", "subtractions", "verified", "largest fall of the skill"], kinds),
        nothing,
    ]


def _prediction(prediction: dict[str, Any]) -> list[str]:
    said = (
        "Rank correlation (Spearman) of the predicted and the measured score of the removed skill. *Beside*: the base with what is left of the "
        "component and all other named components added, which is the prediction that is printed before anything is measured on the target. "
        "*Alone*: the adapter's dose-response, nothing else added. With the whole component removed every prediction is about 0, and so is what "
        "comes; where one side does not vary there is no correlation."
    )
    doses = list(next(iter(prediction.values()))["at"])
    rows = [
        [
            what,
            str(row["components"]),
            name,
            _number(row["all doses"][way]),
            _number(row["mean over doses"][way]),
            *(_number(row["at"][dose][way]) for dose in doses),
            _number(row["error"][way]),
        ]
        for what, row in prediction.items()
        for way, name in (("predicted_beside", "beside"), ("predicted", "alone"))
    ]
    titles = ["", "components", "prediction", "all doses", "mean of the doses", *(f"{dose} removed" for dose in doses), "mean error at 1"]
    return [said, table(titles, rows)]


def _ways(found: dict[str, Any]) -> str:
    rows = [
        [name, f"{row['gone']} of {found['measurable']}", *(_number(row[key]) for key in ("left", "others", "general", "largest fall"))]
        for name, row in found["ways"].items()
    ]
    titles = ["way", "skills gone", "left of them, mean", "others, mean absolute change", "general", "largest fall elsewhere"]
    alone = f"Subtracted from the base alone, which holds none of them, the components change no task by more than {_number(found['base alone'])}."
    return table(titles, rows) + "\n\n" + alone


def _falls(falls: Sequence[dict[str, Any]]) -> list[str]:
    kinds: dict[str, int] = {}
    for fall in falls:
        cause = re.split(r"[:(]", fall["explanation"])[0].strip().removesuffix(",")
        kinds[cause] = kinds.get(cause, 0) + 1
    rows = [
        [
            fall["target"],
            fall["removed"],
            fall["task"],
            "yes" if fall["in the target"] else "no",
            _number(fall["before"]),
            _number(fall["after"]),
            fall["explanation"],
        ]
        for fall in falls
    ]
    return [
        "\n".join(f"- {count}: {cause}" for cause, count in sorted(kinds.items(), key=lambda item: -item[1])),
        table(["target", "removed", "fell", "in the target", "before", "after", "why"], rows),
    ]


def _spread(values: dict[str, float] | None) -> str:
    return " / ".join(_number(values[key]) for key in ("least", "mean", "most")) if values else ""


def _number(value: float | None) -> str:
    return "" if value is None else re.sub(r"^(-?)0\.", r"\1.", f"{value:.3f}")


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"


if __name__ == "__main__":
    main()
