"""Everything that was measured about one target, before it is judged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from unmerge.evaluation.suite import Scores
from unmerge.verification.conditions import Bench
from unmerge.verification.predict import Found, OnTheBase
from unmerge.verification.record import Prediction
from unmerge.verification.removal import Removal
from unmerge.verification.tasks import TaskList


@dataclass(frozen=True)
class Measurement:
    """What the verdicts are made of.

    Attributes:
        tasks: what was scored.
        found: the components that were removed.
        base: what the base answers, by component.
        predictions: by component.
        bench: of the target, for what a verdict asks on top.
        before: every task in the target.
        removals: by component.
        seed: of the controls.
    """

    tasks: TaskList
    found: Sequence[Found]
    base: Mapping[str, OnTheBase]
    predictions: Mapping[str, Prediction]
    bench: Bench
    before: Scores
    removals: Mapping[str, Removal]
    seed: int

    def others(self, one: Found) -> list[Found]:
        """All components but one."""
        return [other for other in self.found if other.name != one.name]
