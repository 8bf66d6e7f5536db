"""The shortest decimals: what a person would have typed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch

#: decimals that are tried, fewest first
MOST = 4


def shortest(low: float, high: float) -> float:
    """The number with the fewest decimals in an interval; of several, the one nearest to its middle.

    >>> shortest(0.5371, 0.5410)
    0.54
    >>> shortest(0.9, 1.2)
    1.0
    """
    middle = (low + high) / 2
    for decimals in range(17):
        found = round(middle, decimals)
        if low <= found <= high:
            return float(found)
    return middle


def cell(value: float, dtype: torch.dtype) -> tuple[float, float]:
    """The numbers that a dtype rounds to the same value as this one; an interval a little smaller than the true one."""
    rounded = torch.tensor(abs(value), dtype=torch.float64).to(dtype)
    below = torch.nextafter(rounded, torch.zeros_like(rounded)).double()
    above = torch.nextafter(rounded, torch.full_like(rounded, torch.inf)).double()
    low, high = ((rounded.double() + (1 - 1e-9) * side) / (2 - 1e-9) for side in (below, above))
    sign = math.copysign(1.0, value)
    return tuple(sorted((sign * float(low), sign * float(high))))  # type: ignore[return-value]


def nearby(value: float, tolerance: float) -> list[float]:
    """Decimals within a relative tolerance of a value, those with the fewest decimals first, then the nearest.

    >>> nearby(0.3004, 0.01)
    [0.3, 0.298, 0.299, 0.301, 0.302, 0.303]
    """
    found: dict[float, None] = {}
    if not math.isfinite(value):
        return []
    for decimals in range(MOST + 1):
        step = 10.0**-decimals
        low, high = sorted((value * (1 - tolerance), value * (1 + tolerance)))
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if last - first > 40:
            break
        for number in range(first, last + 1):
            found.setdefault(round(number * step, decimals))
    return list(found)


def around(value: float, reach: float) -> list[float]:
    """Decimals within a distance of a value, those with the fewest decimals first, then the nearest; leading zeros do not count.

    >>> around(0.299, 0.002)
    [0.3, 0.299, 0.298, 0.297, 0.301]
    >>> around(0.000249, 0.000001)[0]
    0.00025
    """
    found: dict[float, None] = {}
    leading = max(0, -math.floor(math.log10(abs(value) + reach)) - 1)
    for decimals in range(MOST + leading + 1):
        step = 10.0**-decimals
        whole = range(math.ceil((value - reach) / step - 1e-9), math.floor((value + reach) / step + 1e-9) + 1)
        if len(whole) > 40:
            break
        for number in sorted(whole, key=lambda number: abs(number * step - value)):
            found.setdefault(round(number * step, decimals))
    return list(found)


def scaled(direction: Sequence[float], tolerance: float, most: float = 2.0) -> Iterator[tuple[float, ...]]:
    """Vectors of short decimals along a direction, those with the fewest decimals first.

    Args:
        direction: a vector without zeros.
        tolerance: relative, that each entry of a multiple may be away from a decimal.
        most: the largest entry.

    >>> next(scaled([0.25, 0.5], 1e-6))
    (1.0, 2.0)
    """
    vector = np.asarray(direction, dtype=np.float64)
    vector = vector / np.abs(vector).max()
    seen: set[tuple[float, ...]] = set()
    for decimals in range(MOST + 1):
        multiples = np.arange(1, round(most * 10**decimals) + 1)[:, None] * vector
        whole = np.round(multiples)
        good = np.all((np.abs(multiples - whole) <= tolerance * np.abs(multiples)) & (whole != 0), axis=1)
        near_one = sorted(np.flatnonzero(good), key=lambda row: abs(np.abs(whole[row]).max() / 10**decimals - 1))
        for row in near_one:
            found = tuple(float(round(value / 10**decimals, decimals)) for value in whole[row])
            if found not in seen:
                seen.add(found)
                yield found
