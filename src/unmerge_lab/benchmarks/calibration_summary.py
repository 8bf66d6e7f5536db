"""Figures of ``calibration.py`` from its trials: rejections at three levels by relation, claims of atoms that are not there, and those that are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from scipy import stats

from unmerge_lab.studies.families.design import RELATIONS

LEVELS = (0.05, 0.01, 0.001)
CONFIDENCE = 0.95

Record = Mapping[str, Any]


def summary(trials: Sequence[Record]) -> dict[str, Any]:
    """Sum up trials.

    Returns:
        ``rejections``: by group, then by relation, size, modules and precision; ``absent``: what was said of atoms that are not in the target;
        ``present``: of those that are.
    """
    return {
        "targets": {group: sum(trial["group"] == group for trial in trials) for group in _values(trials, "group")},
        "rejections": {
            group: _splits([trial for trial in trials if trial["group"] == group], lambda verdict: verdict["weight"] is None, _rejections)
            for group in ("unknown", "mixed")
        },
        "absent": {
            group: _splits([trial for trial in trials if trial["group"] == group], lambda verdict: verdict["weight"] is None, _claims)
            for group in ("unknown", "mixed", "known")
        },
        "present": {
            group: _splits([trial for trial in trials if trial["group"] == group], lambda verdict: verdict["weight"] is not None, _found)
            for group in ("mixed", "known")
        },
        "failures": [f"{trial['name']}: {trial['failure']}" for trial in trials if trial["failure"]],
        "targets with a false exact claim": sum(
            any(verdict["weight"] is None and verdict["identity"] == "exact" for verdict in trial["verdicts"]) for trial in trials
        ),
    }


def _splits(trials: Sequence[Record], wanted: Callable[[Record], bool], measure: Callable[[list[Record]], Any]) -> dict[str, Any]:
    """A measure over all wanted verdicts, and over those of each relation, size, kind of modules and precision."""
    pairs = [(trial, verdict) for trial in trials for verdict in trial["verdicts"] if wanted(verdict)]
    of: dict[str, Callable[[Record, Record], Any]] = {
        "relation": lambda _, verdict: verdict["relation"],
        "atoms": lambda trial, _: _size(trial["atoms"]),
        "modules": lambda trial, _: trial["modules"],
        "dtype": lambda trial, _: trial["dtype"],
    }
    found = {"all": measure([verdict for _, verdict in pairs])}
    for name, part in of.items():
        values = {part(trial, verdict) for trial, verdict in pairs}
        order = [relation for relation in RELATIONS if relation in values] if name == "relation" else sorted(values)
        found[name] = {value: measure([verdict for trial, verdict in pairs if part(trial, verdict) == value]) for value in order}
    return found


def _rejections(verdicts: list[Record]) -> dict[str, Any]:
    """Shares of p-values at or below each level, with the interval that they would lie in if they were uniform."""
    values = [verdict["p_value"] for verdict in verdicts if verdict["p_value"] is not None]
    found: dict[str, Any] = {"p-values": len(values)}
    for level in LEVELS if values else ():
        low, high = (bound / len(values) for bound in stats.binom.interval(CONFIDENCE, len(values), level))
        found[f"{level:g}"] = {"share": sum(value <= level for value in values) / len(values), "low": low, "high": high}
    return found


def _claims(verdicts: list[Record]) -> dict[str, Any]:
    return {"atoms": len(verdicts), "named": sum(verdict["named"] for verdict in verdicts), **_identities(verdicts)}


def _found(verdicts: list[Record]) -> dict[str, Any]:
    exact = [verdict for verdict in verdicts if verdict["identity"] == "exact" and not verdict["group"]]
    with_interval = [verdict for verdict in verdicts if verdict["named"] and not verdict["group"] and verdict["interval"]]
    return {
        **_claims(verdicts),
        "exact alone": len(exact),
        "in a group": sum(bool(verdict["group"]) for verdict in verdicts),
        "interval holds": sum(verdict["interval"][0] <= verdict["weight"] <= verdict["interval"][1] for verdict in with_interval),
        "with an interval": len(with_interval),
    }


def _identities(verdicts: Iterable[Record]) -> dict[str, int]:
    said = [verdict["identity"] for verdict in verdicts if verdict["named"]]
    return {name: sum(identity == name for identity in said) for name in ("exact", "relative", "undecided")} | {"untested": said.count(None)}


def _size(atoms: int) -> str:
    return next(name for most, name in ((4, "3-4"), (10, "5-10"), (35, "11-35"), (100, "36-100"), (10**9, "101-200")) if atoms <= most)


def _values(trials: Sequence[Record], part: str) -> list[str]:
    return list(dict.fromkeys(trial[part] for trial in trials))


def show(figures: Mapping[str, Any]) -> None:
    """Print the figures."""
    print("targets", figures["targets"], "with a false exact claim:", figures["targets with a false exact claim"])
    for failure in figures["failures"]:
        print("failed", failure)
    for part in ("rejections", "absent", "present"):
        for group, splits in figures[part].items():
            rows = [("all", splits["all"]), *((f"{name}: {value}", row) for name in splits if name != "all" for value, row in splits[name].items())]
            for name, row in rows:
                print(f"{part:<10} {group:<8} {name:<24} " + "  ".join(f"{own} {_text(value)}" for own, value in row.items()))


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"{value['share']:.4f} ({value['low']:.4f}-{value['high']:.4f})"
    return str(value)
