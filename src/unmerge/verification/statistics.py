"""Is a change more than chance? Paired by item, since the same items are answered before and after.

- McNemar's exact test: of the items that changed, as many fall as rise by chance (binomial, two-sided). For scores between 0 and 1 it is
  the sign test. Source: McNemar 1947, Psychometrika 12.
- Bootstrap: items are drawn again with replacement; percentiles of the mean difference.
- Holm's correction over components. Source: Holm 1979, Scandinavian Journal of Statistics 6.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from scipy import stats

#: of intervals; draws and seed of the bootstrap
CONFIDENCE, DRAWS, SEED = 0.95, 2000, 0
#: items looked for at most
_MOST = 4096


def mcnemar(before: Sequence[float], after: Sequence[float]) -> float:
    """Two-sided p-value of the exact test; 1 where no item changed.

    >>> mcnemar([1.0] * 6, [0.0] * 6)
    0.03125
    """
    change = np.asarray(after, dtype=np.float64) - np.asarray(before, dtype=np.float64)
    falls, rises = int((change < 0).sum()), int((change > 0).sum())
    return float(stats.binomtest(falls, falls + rises).pvalue) if falls + rises else 1.0


def interval(before: Sequence[float], after: Sequence[float]) -> tuple[float, float]:
    """Bootstrap interval of mean(after) - mean(before)."""
    change = np.asarray(after, dtype=np.float64) - np.asarray(before, dtype=np.float64)
    drawn = np.random.default_rng(SEED).integers(len(change), size=(DRAWS, len(change)))
    low, high = np.quantile(change[drawn].mean(1), [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values, in the order given.

    >>> holm([0.03, 0.01, 0.5])
    [0.06, 0.03, 0.5]
    """
    adjusted, highest = [1.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda place: p_values[place])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = highest
    return adjusted


def power(items: int, falls: float, rises: float, level: float) -> float:
    """Chance that the exact test sees a fall.

    Args:
        items: how many there are.
        falls: share of the items that go from right to wrong.
        rises: share that go the other way.
        level: of the test.
    """
    changed = np.arange(items + 1)
    # fewest falls among so many changes that the test rejects
    least = stats.binom.isf(level / 2, changed, 0.5) + 1
    seen = stats.binom.sf(least - 1, changed, falls / (falls + rises))
    return float(stats.binom.pmf(changed, items, falls + rises) @ seen)


@lru_cache
def items_needed(falls: float, rises: float, level: float, wanted: float) -> int:
    """The fewest items with which the exact test has a power; the highest number looked at where none is enough."""
    return next((items for items in range(1, _MOST) if power(items, falls, rises, level) >= wanted), _MOST)
