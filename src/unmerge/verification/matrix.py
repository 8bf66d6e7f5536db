"""The matrix of the proof: which component was removed, and how every task scored then."""

from __future__ import annotations

from pydantic import BaseModel

#: a skill must have scored this much before it can be lost
MEASURABLE = 0.8
#: at most this is left of the removed skill, and no other skill falls by more
GONE, FALL = 0.10, 0.10


class Row(BaseModel):
    """One condition: what was removed (None: nothing) and the share of items answered exactly, by task."""

    removed: str | None
    coefficient: float | None
    scores: dict[str, float]


class AblationMatrix(BaseModel):
    """Exact match by condition and task.

    Attributes:
        rows: the first one with nothing removed.
        task_of: the task of every atom that was removed.
        general: tasks that are not skills.
        items: held-out items by task.
    """

    rows: list[Row]
    task_of: dict[str, str]
    general: list[str]
    items: dict[str, int]

    @property
    def tasks(self) -> list[str]:
        """Every task, in the order of the columns."""
        return list(self.rows[0].scores)

    def left(self, row: Row) -> float:
        """What the removed skill still scores."""
        return row.scores[self.task_of[row.removed or ""]]

    def largest_fall(self, row: Row) -> tuple[str, float]:
        """The other task that falls the most, among those that scored at least MEASURABLE before, and by how much."""
        before = self.rows[0].scores
        falls = {
            task: before[task] - row.scores[task] for task in self.tasks if before[task] >= MEASURABLE and task != self.task_of[row.removed or ""]
        }
        task = max(falls, key=lambda name: falls[name])
        return task, falls[task]

    def measurable(self, row: Row) -> bool:
        """Whether the removed skill was there to be lost."""
        return self.rows[0].scores[self.task_of[row.removed or ""]] >= MEASURABLE

    def specific(self, row: Row) -> bool:
        """Whether the removed skill was there, is gone, and every other one is still there."""
        return self.measurable(row) and self.left(row) <= GONE and self.largest_fall(row)[1] <= FALL
