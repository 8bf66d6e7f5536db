"""The study's measures, by values computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from unmerge_lab.studies import metrics


def named(*components: str) -> list[frozenset[str]]:
    """Components as "a" or, in a group with others, as "a b c"."""
    return [frozenset(component.split()) for component in components]


@pytest.mark.parametrize(
    ("found", "truth", "precision", "recall", "perfect"),
    [
        (named("a", "b"), {"a", "b"}, 1, 1, True),
        (named("a", "b", "x", "y"), {"a", "b", "c"}, 0.5, 2 / 3, False),
        (named("a"), {"a", "b"}, 1, 0.5, False),
        (named("x"), {"a"}, 0, 0, False),
        (named(), {"a"}, 0, 0, False),
        (named(), set(), 1, None, True),
        (named("x"), set(), 0, None, False),
        (named("x a", "b"), {"a", "b"}, 1, 1, True),
        (named("x y", "b"), {"a", "b"}, 0.5, 0.5, False),
        (named("a b"), {"a", "b"}, 1, 1, True),
    ],
)
def test_precision_and_recall(found: list[frozenset[str]], truth: set[str], precision: float, recall: float | None, perfect: bool) -> None:
    """Groups count as right with one right atom; naming nothing is right only where there is nothing."""
    assert metrics.precision(found, truth) == precision
    assert metrics.recall(found, truth) == recall
    assert metrics.perfect(found, truth) == perfect


def test_effective_number() -> None:
    assert metrics.effective_number(np.zeros(3)) == 0
    assert metrics.effective_number(np.array([0.0, -2.0, 0.0])) == pytest.approx(1)
    assert metrics.effective_number(np.array([1.0, -1.0, 1.0, 1.0])) == pytest.approx(4)
    # p = 3/4, 1/4: exp(H) = (4/3)^(3/4) 4^(1/4)
    assert metrics.effective_number(np.array([3.0, 1.0])) == pytest.approx((4 / 3) ** 0.75 * 4**0.25)


def test_coefficient_error() -> None:
    assert metrics.coefficient_error({"a": 0.55, "b": 0.9, "x": 7}, {"a": 0.5, "b": 1.0}) == pytest.approx(0.1)
    assert metrics.coefficient_error({"a": 0.5}, {"a": 0.5, "b": 1.0}) == 1  # b was not found
    assert metrics.coefficient_error({"a": 0.5}, {}) is None
    assert metrics.coefficient_error({"a": 0.5}, None) is None


def test_errors_against_vectors() -> None:
    t, fitted = np.array([3.0, 4.0, 0.0]), np.array([3.0, 0.0, 1.0])
    residual = float(((t - fitted) ** 2).sum())  # 17
    assert metrics.reconstruction_error(residual, 25.0) == pytest.approx(math.sqrt(17) / 5)
    # cos = 9 / (sqrt(10) 5)
    assert metrics.one_minus_cosine_squared(float(fitted @ fitted), float(t @ fitted), 25.0) == pytest.approx(1 - 81 / 250)
    assert metrics.one_minus_cosine_squared(0.0, 0.0, 25.0) == 1
    assert metrics.one_minus_cosine_squared(25.0, 25.0, 25.0) == 0
