"""Write docs/recover-measured.md from the record of `make recover`."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from unmerge.core.records import read_json, write_text
from unmerge_lab.report.study_tables import table

Outcome = dict[str, Any]


def main() -> None:
    """Read the record, write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, default=Path("runs/recover.json"))
    parser.add_argument("--out", type=Path, default=Path("docs/recover-measured.md"))
    arguments = parser.parse_args()
    record = read_json(arguments.json, "the record of recover; run 'make recover'")
    outcomes: list[Outcome] = record["outcomes"]
    groups = {group: [outcome for outcome in outcomes if outcome["target"]["group"] == group] for group in ("known", "mixed", "adapter", "nothing")}
    sections = [
        "# Recover, measured",
        (
            "Made by `make recover` on the embedded zoo: new targets, used for nothing else, half of them in bfloat16 and half in float32. "
            "[How it works](recover.md)."
        ),
        (
            "*Right*: the method is named, or another recipe makes at least 99.9% of the changed weights again, bit for bit. *Weights*: the largest "
            "relative error as the merge's dtype has them, of their shares where a common factor does not show. *Identical*: least share of changed "
            "weights over the targets, by the recipe run by mergekit itself; where weights have many digits, the largest difference over the largest "
            "change stands beside it, and itself in brackets: 6e-08 is one step of float32 between .5 and 1. *Explained*: of the entries that "
            "tell, by masks read off; beside the best decoy of all targets at density .5."
        ),
        f"{len(outcomes)} of the {record['planned']} targets are measured.",
        "## Known components only",
        _merges(groups["known"]),
        "## Beside unknown components",
        _mixed(groups["mixed"]),
        *(["## Adapters that PEFT combined", _merges(groups["adapter"])] if groups["adapter"] else []),
        *(["## Targets that no recipe makes", _nothing(groups["nothing"])] if groups["nothing"] else []),
        _wrong([*groups["known"], *groups["adapter"], *groups["mixed"], *groups["nothing"]]),
        (
            f"Seconds a target: {_most(outcomes, lambda outcome: outcome['seconds']):.0f} at most, "
            f"{sorted(outcome['seconds'] for outcome in outcomes)[len(outcomes) // 2]:.0f} in the median."
        ),
    ]
    write_text(arguments.out, "\n\n".join(section for section in sections if section) + "\n")


def _by_method(outcomes: Sequence[Outcome]) -> dict[str, list[Outcome]]:
    methods = dict.fromkeys(outcome["target"]["method"] for outcome in outcomes)
    return {method: [outcome for outcome in outcomes if outcome["target"]["method"] == method] for method in methods}


def _merges(outcomes: Sequence[Outcome]) -> str:
    rows = []
    for method, some in _by_method(outcomes).items():
        short = [outcome for outcome in some if outcome["target"]["weighting"] != "many digits" or outcome["target"]["dtype"] == "bfloat16"]
        long = [outcome for outcome in some if outcome not in short]
        rows.append(
            [
                method,
                _seeds(some),
                f"{sum(map(is_right, some))} of {len(some)}",
                _text(_most(some, lambda outcome: outcome["compared"]["weight error"]), ".2%"),
                _text(_most(some, lambda outcome: outcome["compared"]["density error"]), ".3f"),
                _text(_least(short, lambda outcome: outcome["found"]["identical_share"]), ".4f"),
                _differences(long),
                _text(_least(some, lambda outcome: _proof(outcome).get("telling") or _proof(outcome).get("explained")), ".4f"),
                _text(_most([outcome for outcome in some if _is_half(outcome)], _best_decoy), ".2f"),
                _text(_most(some, lambda outcome: _proof(outcome).get("reconstruction_error")), ".4f"),
            ]
        )
    titles = ["", "seeds", "right", "weights", "density", "identical", "difference", "explained", "decoy", "error left"]
    return table(titles, rows)


def _mixed(outcomes: Sequence[Outcome]) -> str:
    rows = [
        [
            method,
            _seeds(some),
            str(len(some)),
            str(sum(outcome["found"]["answer"] == "part of a recipe" for outcome in some)),
            str(sum(outcome["compared"]["same method"] for outcome in some)),
            _text(_most(some, lambda outcome: outcome["compared"]["weight error"]), ".2%"),
            _text(_most(some, lambda outcome: outcome["compared"]["density error"]), ".3f"),
        ]
        for method, some in _by_method(outcomes).items()
    ]
    return table(["", "seeds", "targets", "known part given", "method named", "weights", "density"], rows)


def _nothing(outcomes: Sequence[Outcome]) -> str:
    rows = []
    for kind, some in _by_method(outcomes).items():
        answers = sorted({outcome["found"]["answer"] for outcome in some})
        given = sum(outcome["found"]["answer"] in ("recipe", "part of a recipe") for outcome in some)
        rows.append(
            [kind, str(len(some)), str(given), ", ".join(f"{sum(o['found']['answer'] == answer for o in some)} {answer}" for answer in answers)]
        )
    return table(["", "targets", "given a recipe", "answers"], rows)


def _seeds(outcomes: Sequence[Outcome]) -> str:
    seeds = [outcome["target"]["seed"] for outcome in outcomes]
    return f"{min(seeds)}-{max(seeds)}"


def is_right(outcome: Outcome) -> bool:
    """Whether the method was named, or the recipe makes the target all the same."""
    return bool(outcome["compared"]["same method"] or outcome["compared"]["rebuilt"])


def _wrong(outcomes: Sequence[Outcome]) -> str:
    """What did not come back, one line each."""
    lines = []
    for outcome in outcomes:
        target, found = outcome["target"], outcome["found"]
        if not is_right(outcome):
            of = f"{len(target['inputs'])} models, {target['dtype']}, {target['weighting']}" if target["inputs"] else target["dtype"]
            lines.append(f"- {target['group']}, {target['method']} ({of}, seed {target['seed']}): {found['answer']}, {found['method']}")
    return "## What did not come back\n\n" + ("\n".join(lines) if lines else "Everything did.")


def _proof(outcome: Outcome) -> dict[str, Any]:
    return outcome["found"]["proof"] or {}


def _difference(outcome: Outcome) -> float | None:
    proof = _proof(outcome)
    return proof["largest_difference"] / proof["largest_change"] if proof.get("largest_change") else None


def _differences(outcomes: Sequence[Outcome]) -> str:
    """The largest, relative and in brackets absolute; empty where nothing was compared."""
    relative, absolute = _most(outcomes, _difference), _most(outcomes, lambda outcome: _proof(outcome).get("largest_difference"))
    return "" if relative != relative else f"{relative:.1e} ({absolute:.0e})"


def _is_half(outcome: Outcome) -> bool:
    return all(settings.get("density") == 0.5 for settings in outcome["target"]["inputs"].values())


def _best_decoy(outcome: Outcome) -> float | None:
    return max(_proof(outcome).get("decoys", {}).values(), default=None)


def _values(outcomes: Iterable[Outcome], key: Callable[[Outcome], float | None]) -> list[float]:
    return [value for outcome in outcomes if (value := key(outcome)) is not None]


def _most(outcomes: Iterable[Outcome], key: Callable[[Outcome], float | None]) -> float:
    return max(_values(outcomes, key), default=float("nan"))


def _least(outcomes: Iterable[Outcome], key: Callable[[Outcome], float | None]) -> float:
    return min(_values(outcomes, key), default=float("nan"))


def _text(value: float, form: str) -> str:
    return "" if value != value else format(value, form)


if __name__ == "__main__":
    main()
