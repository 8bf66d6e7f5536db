"""Conditions measured: what was removed from which model, and the score of every item; kept line by line, found again by the next run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from unmerge.core.journal import Journal
from unmerge.core.records import fingerprint
from unmerge.evaluation.suite import Scores, Suite
from unmerge.verification.in_place import InPlace, Removed


class Measured(BaseModel):
    """One condition.

    Attributes:
        job: fingerprint of the model and of whatever else decides the scores.
        condition: what was removed, in words that are the same in every run.
        scores: of every item, by task.
    """

    job: str
    condition: str
    scores: dict[str, list[float]]


class Conditions:
    """What was measured so far, in memory and in a file.

    Args:
        file: JSON lines, or None to keep nothing. Lines of another job are left as they are.
    """

    def __init__(self, file: Path | None) -> None:
        self._journal = Journal(file, Measured) if file else None
        self._found: dict[tuple[str, str], Scores] = {}
        if self._journal:
            self._journal.mend()
            for line in self._journal.records():
                self._found.setdefault((line.job, line.condition), {}).update(line.scores)

    def of(self, job: str, condition: str) -> Scores:
        """What is known of a condition."""
        return self._found.get((job, condition), {})

    def add(self, job: str, condition: str, scores: Scores) -> None:
        """Keep what was measured."""
        self._found.setdefault((job, condition), {}).update(scores)
        if self._journal:
            self._journal.add(Measured(job=job, condition=condition, scores=scores))


class Bench:
    """One model, the tasks, and what is known already.

    Args:
        place: the model.
        tokenizer: its tokenizer.
        suite: the tasks.
        known: what was measured.
        job: whatever decides the scores beside the condition: hashes of the model and the atoms, their coefficients.
        watch: told of every condition that is asked for.
    """

    def __init__(self, place: InPlace, tokenizer: Any, suite: Suite, known: Conditions, job: Any, watch: Callable[[], None]) -> None:
        self._place, self._tokenizer, self._suite, self._known, self._watch = place, tokenizer, suite, known, watch
        self._job = fingerprint([job, {task: suite.identity(task) for task in suite.tasks}])

    def scores(self, condition: str, removed: Removed, tasks: Sequence[str]) -> Scores:
        """Every item of some tasks with something removed; what is known is not measured again.

        Args:
            condition: its name, the same for the same removal.
            removed: what is taken out meanwhile.
            tasks: names of the suite.
        """
        known = self._known.of(self._job, condition)
        if missing := [task for task in tasks if task not in known]:
            with self._place.without(removed):
                self._known.add(self._job, condition, self._suite.score(self._place.model, self._tokenizer, missing))
            known = self._known.of(self._job, condition)
        self._watch()
        return {task: known[task] for task in tasks}
