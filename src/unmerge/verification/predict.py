"""What a removal is expected to do, from the base alone, before anything is measured on the target.

An adapter's dose-response: the base with x dW added, scored on the adapter's skill, for the coefficients that each multiple of the removal
leaves. If components act on their own, the target answers as the base does at what is left of the coefficient, and nothing else changes.
Since adapters help each other over a threshold, the same is done once more beside the other components at their coefficients; that one is
the prediction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from unmerge.evaluation.suite import Scores
from unmerge.vectors import TaskVector
from unmerge.verification.conditions import Bench
from unmerge.verification.record import Prediction

#: multiples of a component's coefficient that are removed
MULTIPLES = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)


@dataclass(frozen=True)
class Found:
    """A component of the target, and what it is for.

    Attributes:
        atom: its task vector.
        coefficient: that was found.
        tasks: of the atom.
    """

    atom: TaskVector
    coefficient: float
    tasks: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.atom.name


@dataclass(frozen=True)
class OnTheBase:
    """What the base answers.

    Attributes:
        nothing: every task, the base as it is.
        left: by multiple of the removal, score of the skill on the base with what is left of the component added.
        beside: the same with the other components added too.
        alone: every task, the component subtracted from the base, which does not hold it.
    """

    nothing: Scores
    left: dict[float, float]
    beside: dict[float, float]
    alone: Scores


def pooled(scores: Scores, tasks: Sequence[str]) -> list[float]:
    """The items of some tasks, one after the other."""
    return [score for task in tasks for score in scores[task]]


def mean(scores: Sequence[float]) -> float:
    """The share of items that are right."""
    return sum(scores) / len(scores)


def measure_base(bench: Bench, found: Sequence[Found], tasks: Sequence[str]) -> dict[str, OnTheBase]:
    """The dose-response of every component on the base, and the base less each of them.

    Args:
        bench: of the base.
        found: the components.
        tasks: all that the subtraction is scored on.
    """
    nothing = bench.scores("nothing", [], tasks)
    return {
        one.name: OnTheBase(
            nothing=nothing,
            left={multiple: _with(bench, one, 1 - multiple, []) for multiple in MULTIPLES},
            beside={multiple: _with(bench, one, 1 - multiple, [other for other in found if other.name != one.name]) for multiple in MULTIPLES},
            alone=bench.scores(f"- {one.name}", [(one.atom, one.coefficient)], tasks),
        )
        for one in found
    }


def _with(bench: Bench, one: Found, share: float, others: Sequence[Found]) -> float:
    """The skill's score on the base, with a share of the component and all of the others added."""
    added = [(one.atom, -share * one.coefficient)] if share else []
    added += [(other.atom, -other.coefficient) for other in others]
    condition = " ".join(([f"+ {share:g} x {one.name}"] if share else []) + [f"+ {other.name}" for other in others]) or "nothing"
    return mean(pooled(bench.scores(condition, added, one.tasks), one.tasks))


def predict(one: Found, found: Sequence[Found], base: OnTheBase) -> Prediction:
    """What is to come of removing one component."""
    return Prediction(
        before=base.beside[0.0],
        after=base.beside[1.0],
        falls=list(one.tasks),
        stays=[task for other in found if other.name != one.name for task in other.tasks if task not in one.tasks],
        curve=_curve(one, base.left),
        beside=_curve(one, base.beside),
    )


def _curve(one: Found, scores: Mapping[float, float]) -> list[tuple[float, float]]:
    """(coefficient that is left, score), in rising order."""
    return sorted(((1 - multiple) * one.coefficient, score) for multiple, score in scores.items())
