"""Against other implementations and against simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest

from unmerge.verification.statistics import holm, interval, items_needed, mcnemar, power


def table(both: int, falls: int, rises: int, neither: int) -> tuple[list[float], list[float]]:
    before = [1.0] * (both + falls) + [0.0] * (rises + neither)
    after = [1.0] * both + [0.0] * falls + [1.0] * rises + [0.0] * neither
    return before, after


@pytest.mark.parametrize(("falls", "rises"), [(6, 0), (10, 3), (3, 10), (5, 5), (0, 0), (1, 0)])
def test_mcnemar(falls: int, rises: int) -> None:
    """The two-sided exact test: twice the smaller tail of a fair coin. What did not change does not count."""
    n, least = falls + rises, min(falls, rises)
    expected = min(1.0, 2 * sum(math.comb(n, k) for k in range(least + 1)) / 2**n)
    for both, neither in ((0, 0), (40, 7)):
        if n + both:
            assert mcnemar(*table(both, falls, rises, neither)) == pytest.approx(expected)


def test_mcnemar_of_scores_between_counts_signs() -> None:
    assert mcnemar([0.5, 0.6, 0.7, 0.2], [0.1, 0.2, 0.1, 0.2]) == pytest.approx(0.25)


def test_interval() -> None:
    """As wide as theory says, around the mean, the same in every run; without variation it is a point."""
    before, after = table(60, 30, 4, 6)
    low, high = interval(before, after)
    change = np.array(after) - np.array(before)
    half = 1.96 * change.std() / math.sqrt(len(change))
    assert (low, high) == pytest.approx((change.mean() - half, change.mean() + half), abs=0.03)
    assert interval(before, after) == (low, high)
    assert interval([1.0] * 9, [0.0] * 9) == (-1.0, -1.0)


def test_holm() -> None:
    """By hand; never below the p-value, in order, and at most 1."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []
    drawn = np.random.default_rng(0).uniform(size=20).tolist()
    adjusted = holm(drawn)
    assert all(ours >= p for ours, p in zip(adjusted, drawn, strict=True))
    assert np.argsort(drawn).tolist() == sorted(range(20), key=lambda place: (adjusted[place], drawn[place]))


@pytest.mark.parametrize(("items", "falls", "rises", "level"), [(21, 0.64, 0.02, 0.05 / 3), (100, 0.1, 0.02, 0.05), (40, 0.2, 0.05, 0.01)])
def test_power_against_simulation(items: int, falls: float, rises: float, level: float) -> None:
    rng = np.random.default_rng(0)
    drawn, counts = np.unique(rng.multinomial(items, [falls, rises, 1 - falls - rises], size=20_000), axis=0, return_counts=True)
    seen = [mcnemar(*table(0, int(fell), int(rose), 1)) <= level and fell > rose for fell, rose, _ in drawn]
    assert power(items, falls, rises, level) == pytest.approx(np.average(seen, weights=counts), abs=0.015)


def test_items_needed() -> None:
    """The first number that is enough; more power, smaller falls and stricter levels need more."""
    needed = items_needed(0.64, 0.02, 0.05, 0.95)
    assert power(needed, 0.64, 0.02, 0.05) >= 0.95 > power(needed - 1, 0.64, 0.02, 0.05)
    assert items_needed(0.64, 0.02, 0.05, 0.99) > needed
    assert items_needed(0.3, 0.02, 0.05, 0.95) > needed
    assert items_needed(0.64, 0.02, 0.001, 0.95) > needed
