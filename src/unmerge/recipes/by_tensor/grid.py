"""Weights that a merge in 16 bits rounds to its dtype before it multiplies by them: each is one of a few values.

Near the right values the share of identical weights does not rise step by step: one weight off by one value changes the sum of
all, and with it every weight of the result. So the common factor is tried first, then single values, then two at a time.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from operator import itemgetter

import torch

from unmerge.recipes.by_tensor.settle import SLACK, Build, Patterns, filled
from unmerge.recipes.case import Case
from unmerge.recipes.polish import DONE

#: common factors that are tried; at most so many numbers, of which two are moved at a time
_FACTORS, _MOST = 41, 6


def on_grid(case: Case, build: Build, patterns: Patterns) -> Patterns:
    """The values of the dtype near some numbers that make the largest share of identical weights, as they are where they are many.

    Args:
        case: target and models, in a dtype of 16 bits.
        build: makes a recipe of patterns; the method may not scale the numbers.
        patterns: where to begin.
    """
    start = [value for pattern in patterns.values() for value in pattern.numbers]
    if len(start) > _MOST:
        return patterns
    tensors = case.quick[-1:]

    def best_of(tried: Iterable[tuple[float, ...]]) -> tuple[float, tuple[float, ...]]:
        shares = ((case.identical(build(filled(patterns, values)), tensors), values) for values in tried)
        return max(shares, key=itemgetter(0))

    reach = SLACK[case.dtype]
    factors = (1 + reach * (2 * number / (_FACTORS - 1) - 1) for number in range(_FACTORS))
    tried = dict.fromkeys(tuple(_rounded(case, [factor * value for value in start])) for factor in factors)
    share, chosen = best_of(tried)
    while share < DONE:
        found, near = best_of(_neighbours(case, chosen))
        if found <= share:
            break
        share, chosen = found, near
    return filled(patterns, chosen)


def _rounded(case: Case, values: Sequence[float]) -> list[float]:
    return torch.tensor(values, dtype=torch.float64).to(case.dtype).double().tolist()


def _neighbours(case: Case, values: Sequence[float]) -> Iterator[tuple[float, ...]]:
    """The next value of the dtype to either side, for one number and for two."""
    rounded = torch.tensor(values, dtype=case.dtype)
    above = torch.nextafter(rounded, torch.full_like(rounded, torch.inf)).double().tolist()
    below = torch.nextafter(rounded, torch.full_like(rounded, -torch.inf)).double().tolist()
    moves = [{place: value} for place in range(len(values)) for value in (below[place], above[place])]
    for one, two in itertools.combinations_with_replacement(moves, 2):
        both = {**one, **two}
        yield tuple(both.get(place, value) for place, value in enumerate(values))
