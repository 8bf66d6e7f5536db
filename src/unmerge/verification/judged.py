"""From what was measured to the record of every component: changes, controls, doses, ways, verdict, and why a skill is still there."""

from __future__ import annotations

from collections.abc import Sequence

from unmerge.evaluation.suite import Scores
from unmerge.verification import statistics
from unmerge.verification.explain import explain
from unmerge.verification.matrix import MEASURABLE
from unmerge.verification.measurement import Measurement
from unmerge.verification.predict import Found, mean, pooled
from unmerge.verification.record import Change, Control, Dose, VerifiedComponent, Way, WayName
from unmerge.verification.survival import survival
from unmerge.verification.verdict import LISTED, is_gone, judge, mean_absolute


def judged(measured: Measurement) -> list[VerifiedComponent]:
    """Every component, in the order of the decomposition."""
    p_values = [statistics.mcnemar(_skill(measured.before, one), _skill(_whole(measured, one), one)) for one in measured.found]
    adjusted = statistics.holm(p_values)
    return [_component(measured, one, *p) for one, *p in zip(measured.found, p_values, adjusted, strict=True)]


def _component(measured: Measurement, one: Found, p_value: float, adjusted: float) -> VerifiedComponent:
    before, after = _skill(measured.before, one), _skill(_whole(measured, one), one)
    had, left = mean(before), mean(after)
    low, high = statistics.interval(before, after)
    changes, controls, doses = _changes(measured, one), _controls(measured, one), _doses(measured, one)
    verdict, because = judge(had, left, adjusted, changes, controls)
    still = survival(measured, one, doses) if verdict == "no effect" else None
    skills = [change for change in changes if change.kind == "skill"]
    disturbed = mean_absolute(changes, "skill")
    base = measured.base[one.name]
    return VerifiedComponent(
        removed=one.name,
        coefficient=one.coefficient,
        tasks=list(one.tasks),
        items=len(before),
        before=had,
        after=left,
        drop=had - left,
        interval=(-high, -low),
        relative_drop=(had - left) / had if had else None,
        p_value=p_value,
        adjusted_p_value=adjusted,
        prediction=measured.predictions[one.name],
        changes=changes,
        mean_fall=_mean([max(-change.change, 0.0) for change in skills]),
        mean_rise=_mean([max(change.change, 0.0) for change in skills]),
        mean_absolute_change=disturbed or 0.0,
        mean_absolute_change_of_present=mean_absolute([change for change in skills if change.before >= MEASURABLE], "skill"),
        general_change=mean_absolute(changes, "general"),
        selectivity=(had - left) / disturbed if disturbed else None,
        controls=controls,
        doses=doses,
        ways=[_way(measured, one, name) for name in measured.removals[one.name].ways],
        base_alone={task: mean(scores) - mean(base.nothing[task]) for task, scores in base.alone.items()},
        verdict=verdict,
        because=[*because, f"{still.cause}: {still.evidence}"] if still else because,
        survival=still,
    )


def _skill(scores: Scores, one: Found) -> list[float]:
    return pooled(scores, one.tasks)


def _whole(measured: Measurement, one: Found) -> Scores:
    return measured.removals[one.name].ways["whole"]


def _changes(measured: Measurement, one: Found) -> list[Change]:
    changes = []
    for task in measured.tasks.all:
        if task not in one.tasks:
            before, after = measured.before[task], _whole(measured, one)[task]
            change = Change(
                task=task,
                kind="general" if task in measured.tasks.general else "skill",
                before=mean(before),
                after=mean(after),
                change=mean(after) - mean(before),
                interval=statistics.interval(before, after),
                p_value=statistics.mcnemar(before, after),
            )
            if change.change < -LISTED:
                change.explanation = explain(measured, one, task)
            changes.append(change)
    return changes


def _controls(measured: Measurement, one: Found) -> list[Control]:
    before = _skill(measured.before, one)
    controls = []
    for kind, (substitute, scores) in measured.removals[one.name].controls.items():
        after = _skill(scores, one)
        controls.append(
            Control(
                kind=kind,
                atom=substitute.atom,
                coefficient=substitute.coefficient,
                before=mean(before),
                after=mean(after),
                p_value=statistics.mcnemar(before, after),
                verified=mean(before) >= MEASURABLE and is_gone(mean(before), mean(after)),
            )
        )
    return controls


def _doses(measured: Measurement, one: Found) -> list[Dose]:
    base = measured.base[one.name]
    return [
        Dose(
            multiple=multiple,
            coefficient=multiple * one.coefficient,
            predicted=base.left[multiple],
            predicted_beside=base.beside[multiple],
            score=mean(_skill(scores, one)),
        )
        for multiple, scores in measured.removals[one.name].doses.items()
    ]


def _way(measured: Measurement, one: Found, name: WayName) -> Way:
    after = measured.removals[one.name].ways[name]
    change = {task: mean(after[task]) - mean(measured.before[task]) for task in measured.tasks.all if task not in one.tasks}
    general = [abs(change[task]) for task in measured.tasks.general]
    worst = min(change, key=lambda task: change[task], default=None)
    return Way(
        name=name,
        after=mean(_skill(after, one)),
        mean_absolute_change=_mean([abs(change[task]) for task in measured.tasks.skills if task in change]),
        general_change=_mean(general) if general else None,
        largest_fall=None if worst is None else (worst, max(-change[worst], 0.0)),
        scores={task: mean(after[task]) for task in measured.tasks.all},
    )


def _mean(values: Sequence[float]) -> float:
    return mean(values) if values else 0.0


def least_disturbing(measured: Measurement) -> WayName | None:
    """The way that changes the other skills least, among those that remove the most components' skills; None where no other skill was measured."""
    if not set(measured.tasks.skills) - set(measured.found[0].tasks):
        return None
    ways = {name: [_way(measured, one, name) for one in measured.found] for name in measured.removals[measured.found[0].name].ways}
    had = [mean(_skill(measured.before, one)) for one in measured.found]
    gone = {name: sum(is_gone(before, way.after) for before, way in zip(had, made, strict=True)) for name, made in ways.items()}
    able = [name for name in ways if gone[name] == max(gone.values())]
    return min(able, key=lambda name: _mean([way.mean_absolute_change for way in ways[name]]))
