"""The verifications of many targets in numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from scipy.stats import spearmanr

from unmerge.verification.matrix import MEASURABLE
from unmerge.verification.record import Verification, VerifiedComponent, Way
from unmerge.verification.verdict import LISTED, is_gone

#: merges in which every weight of a component has one coefficient, and the others
EVEN, UNEVEN = ("task_arithmetic", "linear"), ("ties", "dare_linear", "dare_ties")

#: a component of a target, with what the target is
Row = tuple[dict[str, Any], VerifiedComponent]


def summary(targets: Sequence[dict[str, Any]], records: Sequence[Verification]) -> dict[str, Any]:
    """Over all targets: by kind of merge, controls, predictions, ways to subtract, falls.

    Args:
        targets: what each is.
        records: what came of it.
    """
    rows = [(target, component) for target, record in zip(targets, records, strict=True) for component in record.components]
    named = [(target, component) for target, component in rows if component.removed not in target["claimed"]]
    there = [(target, component) for target, component in named if component.before >= MEASURABLE]
    kinds = {"task_arithmetic, linear": EVEN, "ties, dare": UNEVEN} | {merge: (merge,) for merge in (*EVEN, *UNEVEN)}
    strangers = [f"{target['target']}: {component.removed}" for target, component in named if component.removed not in target["weights"]]
    return {
        "targets": len(targets),
        "components": len(named),
        "measurable": len(there),
        "not in the target": strangers,
        "merges": {kind: _merges([row for row in named if row[0]["merge"] in merges]) for kind, merges in kinds.items()},
        "not verified": [_line(row) for row in there if row[1].verdict != "verified"],
        "controls": _controls(rows, targets),
        "prediction": _predictions([component for _, component in named], [component for _, component in there]),
        "ways": _ways([component for _, component in there]),
        "base alone": max((abs(change) for _, component in rows for change in component.base_alone.values()), default=0.0),
        "falls": [_fall(target, component, change) for target, component in named for change in component.changes if change.change < -LISTED],
    }


def _merges(rows: Sequence[Row]) -> dict[str, Any]:
    there = [component for _, component in rows if component.before >= MEASURABLE]
    return {
        "targets": len({target["target"] for target, _ in rows}),
        "components": len(rows),
        "measurable": len(there),
        "verified": sum(component.verdict == "verified" for component in there),
        "least relative drop": min((component.relative_drop or 0.0 for component in there), default=None),
        "others": _spread(component.mean_absolute_change for component in there),
        "others that the target has": _spread(
            component.mean_absolute_change_of_present for component in there if component.mean_absolute_change_of_present is not None
        ),
        "general": _spread(component.general_change for component in there if component.general_change is not None),
        "selectivity": _spread(component.selectivity for component in there if component.selectivity is not None),
        "falls above .10": sum(change.change < -LISTED for component in there for change in component.changes),
        "of them in skills at .8 or more": sum(
            change.change < -LISTED and change.before >= MEASURABLE for component in there for change in component.changes
        ),
    }


def _spread(values: Iterable[float]) -> dict[str, float] | None:
    listed = sorted(values)
    return {"least": listed[0], "mean": sum(listed) / len(listed), "most": listed[-1]} if listed else None


def _controls(rows: Sequence[Row], targets: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Controls of measurable components; atoms that are not in the target, removed all the same, and what becomes of the skills that are in it."""
    controls = [control for _, component in rows if component.before >= MEASURABLE for control in component.controls]
    kinds = list(dict.fromkeys(control.kind for control in controls))
    claimed = [component for target, component in rows if component.removed in target["claimed"]]
    skills = [change for component in claimed for change in component.changes if change.kind == "skill" and change.before >= MEASURABLE]
    return {
        "subtractions": len(controls),
        "verified": sum(control.verified for control in controls),
        "by kind": {
            kind: {
                "subtractions": sum(control.kind == kind for control in controls),
                "verified": sum(control.verified for control in controls if control.kind == kind),
                "largest fall": max(control.before - control.after for control in controls if control.kind == kind),
            }
            for kind in kinds
        },
        "targets where nothing is named": sum(not target["named"] for target in targets),
        "absent atoms removed from them": len(claimed),
        "of them verified": sum(component.verdict == "verified" for component in claimed),
        "skills of those targets": len(skills),
        "of them gone": sum(is_gone(change.before, change.after) for change in skills),
    }


def _predictions(named: Sequence[VerifiedComponent], there: Sequence[VerifiedComponent]) -> dict[str, Any]:
    """Rank correlation of predicted and measured scores: over components and doses, at each dose, and of each component's mean over doses."""
    return {
        what: {
            "components": len(components),
            "all doses": {way: _rank([(getattr(dose, way), dose.score) for component in components for dose in component.doses]) for way in _WAYS},
            "mean over doses": {
                way: _rank([(_mean(getattr(dose, way) for dose in one.doses), _mean(dose.score for dose in one.doses)) for one in components])
                for way in _WAYS
            },
            "at": {
                f"{multiple:g}": {
                    way: _rank([(getattr(dose, way), dose.score) for one in components for dose in one.doses if dose.multiple == multiple])
                    for way in _WAYS
                }
                for multiple in (dose.multiple for dose in components[0].doses)
            },
            "error": {
                way: _mean(abs(getattr(dose, way) - dose.score) for component in components for dose in component.doses if dose.multiple == 1)
                for way in _WAYS
            },
        }
        for what, components in (("all components", named), ("measurable", there))
        if components
    }


_WAYS = ("predicted", "predicted_beside")


def _rank(pairs: Sequence[tuple[float, float]]) -> float | None:
    """Spearman's correlation; None where one side does not vary."""
    one, other = zip(*pairs, strict=True)
    return float(spearmanr(one, other).statistic) if len(set(one)) > 1 and len(set(other)) > 1 else None


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return sum(listed) / len(listed)


def _ways(components: Sequence[VerifiedComponent]) -> dict[str, Any]:
    ways: dict[str, list[tuple[VerifiedComponent, Way]]] = {way.name: [] for way in components[0].ways} if components else {}
    for component in components:
        for way in component.ways:
            ways[way.name].append((component, way))
    return {
        name: {
            "gone": sum(is_gone(component.before, way.after) for component, way in pairs),
            "left": _mean(way.after for _, way in pairs),
            "others": _mean(way.mean_absolute_change for _, way in pairs),
            "general": _mean(way.general_change or 0.0 for _, way in pairs),
            "largest fall": max(way.largest_fall[1] for _, way in pairs if way.largest_fall),
        }
        for name, pairs in ways.items()
    }


def _line(row: Row) -> dict[str, str]:
    target, component = row
    return {"target": target["target"], "removed": component.removed, "verdict": component.verdict, "because": "; ".join(component.because)}


def _fall(target: dict[str, Any], component: VerifiedComponent, change: Any) -> dict[str, Any]:
    return {
        "target": target["target"],
        "removed": component.removed,
        "task": change.task,
        "in the target": change.task in target["weights"],
        "before": change.before,
        "after": change.after,
        "explanation": change.explanation,
    }
