"""What a verification says: the JSON that ``unmerge verify --json`` writes.

Scores are shares of items answered right, changes are after - before (a fall is negative), all in 0..1. A *skill* is what an atom is for: the
items of all of its tasks together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field

from unmerge.core.columns import Columns, frame_of, html_table
from unmerge.core.records import Environment, Source

if TYPE_CHECKING:
    from pandas import DataFrame

SCHEMA = "unmerge/verification/1"

Verdict = Literal["verified", "not specific", "no effect", "not measurable"]
ControlKind = Literal["random direction", "absent atom", "shuffled modules"]
WayName = Literal["whole", "orthogonal", "by module"]
Cause = Literal["another component carries it", "coefficient too small", "the base has it", "not known"]


class MeasuredTask(BaseModel):
    """A task that every condition was scored on.

    Attributes:
        name: as the tasks file names it.
        kind: whether it belongs to an atom, or is a general benchmark.
        items: held-out items.
        scorer: ``exact match``, or ``lm-eval`` with the metric.
        base: score of the base alone.
        before: score of the target, nothing removed.
    """

    name: str
    kind: Literal["skill", "general"]
    items: int
    scorer: str
    base: float
    before: float


class Change(BaseModel):
    """What a removal did to one task.

    Attributes:
        interval: of the change, bootstrap over the items.
        p_value: exact McNemar, two-sided, not corrected.
        explanation: of a fall above ten points, as far as the measurements tell; None for other changes.
    """

    task: str
    kind: Literal["skill", "general"]
    before: float
    after: float
    change: float
    interval: tuple[float, float]
    p_value: float
    explanation: str | None = None


class Prediction(BaseModel):
    """What was expected before anything was measured on the target: the base with the components added answers in its place.

    Attributes:
        before: of the skill, all components added at the coefficients that were found.
        after: with what the removal leaves of the component, and the others as they are.
        falls: tasks that are to fall: those of the component.
        stays: skills of the other components, which are to stay.
        curve: the adapter's dose-response on the base, nothing else added: (coefficient, score), in rising order.
        beside: the same with the other components added.
    """

    before: float
    after: float
    falls: list[str]
    stays: list[str]
    curve: list[tuple[float, float]]
    beside: list[tuple[float, float]]


class Dose(BaseModel):
    """The skill with a multiple of the coefficient removed: predicted and measured.

    Attributes:
        coefficient: what was removed.
        predicted: score of the base with what is left of the component.
        predicted_beside: the same with the other components added too.
        score: of the target.
    """

    multiple: float
    coefficient: float
    predicted: float
    predicted_beside: float
    score: float


class Control(BaseModel):
    """Something else removed instead, scored on the named component's skill.

    Attributes:
        kind: what was removed.
        atom: the absent atom; for the others, the component itself.
        coefficient: it was removed with.
        p_value: of the fall, exact McNemar.
        verified: whether the skill fell as far as the component's own removal must make it fall.
    """

    kind: ControlKind
    atom: str
    coefficient: float
    before: float
    after: float
    p_value: float
    verified: bool


class Way(BaseModel):
    """One way to subtract.

    Attributes:
        name: the whole atom; without the part that it shares with the other components; weighted module by module.
        after: score of the skill.
        mean_absolute_change: over all other skills.
        general_change: mean absolute change of the general tasks; None where there are none.
        largest_fall: of another task, as (task, fall in 0..1); None where nothing else was measured.
        scores: of every task.
    """

    name: WayName
    after: float
    mean_absolute_change: float
    general_change: float | None
    largest_fall: tuple[str, float] | None
    scores: dict[str, float]


class Survival(BaseModel):
    """Why a skill is still there after its component was removed.

    Attributes:
        cause: what the measurements point to.
        evidence: the numbers.
    """

    cause: Cause
    evidence: str


class VerifiedComponent(BaseModel):
    """One component of the target, removed, measured, and put back.

    Attributes:
        removed: the atom.
        coefficient: it was removed with.
        tasks: of the atom; the skill is all of their items.
        items: of the skill.
        before, after: score of the skill.
        drop: before - after.
        interval: of the drop, bootstrap over the items.
        relative_drop: drop over before; None where there was nothing.
        p_value: of the drop, exact McNemar, two-sided.
        adjusted_p_value: corrected over the components (Holm).
        changes: every other task.
        mean_fall, mean_rise: over the other skills, falls and rises apart, both at least 0.
        mean_absolute_change: over all other skills.
        mean_absolute_change_of_present: over those that the target scored at least .8 on; None where there is none.
        general_change: mean absolute change of the general tasks; None where there are none.
        selectivity: drop over mean absolute change of the other skills; None where none changes.
        base_alone: the atom subtracted from the base, which does not hold it: (task, change) of every task.
        verdict: by the rules of docs/verify.md.
        because: the numbers behind the verdict, a sentence each.
        survival: where the skill is not gone, why.
    """

    removed: str
    coefficient: float
    tasks: list[str]
    items: int
    before: float
    after: float
    drop: float
    interval: tuple[float, float]
    relative_drop: float | None
    p_value: float
    adjusted_p_value: float
    prediction: Prediction
    changes: list[Change]
    mean_fall: float
    mean_rise: float
    mean_absolute_change: float
    mean_absolute_change_of_present: float | None
    general_change: float | None
    selectivity: float | None
    controls: list[Control]
    doses: list[Dose]
    ways: list[Way]
    base_alone: dict[str, float]
    verdict: Verdict
    because: list[str]
    survival: Survival | None


class Power(BaseModel):
    """How many items the test needs, said before it is made.

    Attributes:
        level: of the test of one component, after the correction.
        power: chance to see a fall of ``fall``.
        fall: the smallest fall that a verdict asks for.
        needed: items for that.
        small_fall, needed_for_small: the same for a fall of another task that would be listed.
        short: tasks with fewer items than ``needed``.
    """

    level: float
    power: float
    fall: float
    needed: int
    small_fall: float
    needed_for_small: int
    short: list[str]


class Verification(BaseModel):
    """Every component of one target removed in turn, and what that did.

    Attributes:
        tasks: what every condition was scored on, in the order of the matrix.
        components: in the order of the decomposition.
        without_task: components that have no task, and so were not removed.
        least_disturbing: the way to subtract that changes the other skills least, over all components; None where none was measured.
        items: file with the results of every item, beside this record; None where nothing was kept.
    """

    model_config = ConfigDict(serialize_by_alias=True)

    # "schema" is the key in JSON; as an attribute it would hide one of pydantic's
    schema_: str = Field(SCHEMA, alias="schema")
    target: Source
    base: Source
    dictionary: dict[str, Source]
    method: str
    power: Power
    tasks: list[MeasuredTask]
    components: list[VerifiedComponent]
    without_task: list[str]
    least_disturbing: WayName | None
    items: str | None
    seed: int
    warnings: list[str]
    seconds: float
    environment: Environment

    def to_frame(self) -> DataFrame | Columns:
        """The components, one a row: a pandas DataFrame, or a dict of columns where pandas is not installed."""
        return frame_of(self._columns())

    def _repr_html_(self) -> str:
        return html_table(self._columns(), f"{self.target.path}: every component removed in turn, {len(self.without_task)} without a task")

    def _columns(self) -> Columns:
        names = ("removed", "coefficient", "items", "before", "after", "drop", "adjusted_p_value", "mean_absolute_change", "verdict")
        return {name: [getattr(one, name) for one in self.components] for name in names}
