"""What the matrix of the proof says: what is left, what falls, and whether that is specific."""

from __future__ import annotations

import pytest

from unmerge.verification import AblationMatrix, Row

BEFORE = {"pirate": 1.0, "french": 0.9, "weak": 0.7, "copy": 1.0}


def matrix(**after: float) -> AblationMatrix:
    rows = [Row(removed=None, coefficient=None, scores=BEFORE), Row(removed="arr", coefficient=0.5, scores=BEFORE | after)]
    return AblationMatrix(rows=rows, task_of={"arr": "pirate"}, general=["copy"], items=dict.fromkeys(BEFORE, 64))


CASES: dict[str, tuple[dict[str, float], float, tuple[str, float], bool]] = {
    "gone": ({"pirate": 0.0}, 0.0, ("french", 0.0), True),
    "just gone, just stays": ({"pirate": 0.1, "french": 0.8}, 0.1, ("french", 0.1), True),
    "still there": ({"pirate": 0.11}, 0.11, ("french", 0.0), False),
    "another falls": ({"pirate": 0.0, "french": 0.75}, 0.0, ("french", 0.15), False),
    "general falls": ({"pirate": 0.0, "copy": 0.5}, 0.0, ("copy", 0.5), False),
    "one that could hardly be measured falls": ({"pirate": 0.0, "weak": 0.0}, 0.0, ("french", 0.0), True),
    "another rises": ({"pirate": 0.0, "french": 1.0}, 0.0, ("copy", 0.0), True),
}


def test_a_skill_that_was_hardly_there_proves_nothing() -> None:
    found = matrix(weak=0.0)
    found.task_of["arr"] = "weak"
    assert found.left(found.rows[1]) == 0
    assert not found.measurable(found.rows[1])
    assert not found.specific(found.rows[1])


@pytest.mark.parametrize("name", CASES)
def test_verdict(name: str) -> None:
    after, left, (task, fall), specific = CASES[name]
    found = matrix(**after)
    assert found.left(found.rows[1]) == left
    assert found.largest_fall(found.rows[1]) == (task, pytest.approx(fall))
    assert found.specific(found.rows[1]) == specific
    assert found.tasks == list(BEFORE)
