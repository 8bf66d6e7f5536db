"""The density of a combination that prunes by magnitude: the only number that masks depend on, found by a search on a line."""

from __future__ import annotations

import math
from collections.abc import Sequence

from unmerge.recipes.combinations.fit import Fit, fit
from unmerge.recipes.combinations.kind import Kind
from unmerge.recipes.combinations.looks import Piece

#: densities that are tried first, and how the interval around the best one is narrowed down
_FIRST = [step / 25 for step in range(1, 26)]
_GOLDEN, _STEPS = (math.sqrt(5) - 1) / 2, 24
#: what a typed density may leave over what the best one does, over that: rounding of scores
_AS_GOOD = 1.2


def search(pieces: Sequence[Piece], kind: Kind) -> tuple[float, Fit]:
    """The density under which a kind comes nearest to the target, in as few decimals as do as well, and the fit."""
    found: dict[float, Fit] = {}

    def left(density: float) -> float:
        if density not in found:
            found[density] = fit(pieces, kind, density)
        return found[density].left

    best = min(_FIRST, key=left)
    low, high = max(best - 0.04, 0.001), min(best + 0.04, 1.0)
    for _ in range(_STEPS):
        one, two = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
        if left(one) <= left(two):
            high = two
        else:
            low = one
    best = min(found, key=left)
    for decimals in (1, 2, 3, 4):
        typed = round(best, decimals)
        if left(typed) <= _AS_GOOD * left(best):
            return typed, found[typed]
        if left(typed) < left(best):
            best = typed
    return best, found[best]
