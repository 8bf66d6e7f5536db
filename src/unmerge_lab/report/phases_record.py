"""Records of a study that trains and verifies as well, and of what it will take."""

from __future__ import annotations

from pydantic import BaseModel

from unmerge.core.records import Environment
from unmerge.training.adapters import AdapterRecord
from unmerge.training.plan import TrainingPlan
from unmerge_lab.report.study_record import StudyRecord


class Verdict(BaseModel):
    """What removing one component of one target did to its own tasks."""

    target: str
    group: str
    merge: str
    removed: str
    before: float
    after: float
    verdict: str


class PhasesRecord(BaseModel):
    """All of it in short; each part has a record of its own."""

    adapters: dict[str, AdapterRecord]
    study: StudyRecord
    verdicts: list[Verdict]
    environment: Environment


class PhasesPlan(BaseModel):
    """What it will take.

    Attributes:
        training: Phase 1.
        known: how many adapters make the dictionary.
        unknown: how many are kept out of it.
        targets: by group.
        cells: (target, space, method) in all.
        target_gib: of one merged checkpoint, in its widest dtype.
        verified: targets that are verified.
        removals: components that are taken out of them.
        conditions: model states that are scored.
        hours: that takes, an estimate.
        items: of each task at most, where it is limited.
        tasks: that each state is scored on.
    """

    training: TrainingPlan | None
    known: int
    unknown: int
    targets: dict[str, int]
    cells: int
    target_gib: float
    verified: int
    removals: int
    conditions: int
    hours: float
    items: int | None
    tasks: int
