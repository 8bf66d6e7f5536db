"""The density of a combination that prunes by magnitude: the only number that masks depend on, found by a search on a line."""

from __future__ import annotations

import math
from collections.abc import Sequence

from unmerge.recipes.combinations.fit import fit
from unmerge.recipes.combinations.kind import Kind
from unmerge.recipes.combinations.looks import Piece

#: densities that are tried first, and how the interval around the best one is narrowed down
_FIRST = [step / 25 for step in range(1, 26)]
_GOLDEN, _STEPS = (math.sqrt(5) - 1) / 2, 24
#: next to the true density hardly a mask is wrong: where more than this is left, no density will do
_HOPELESS = 0.15
#: what a typed density may leave over what the best one does, over that: rounding of scores
_AS_GOOD = 1.2


def search(pieces: Sequence[Piece], kind: Kind) -> float:
    """The density under which a kind comes nearest to the target, in as few decimals as do as well."""
    found: dict[float, float] = {}

    def left(density: float) -> float:
        if density not in found:
            found[density] = fit(pieces, kind, density).left
        return found[density]

    best = min(_FIRST, key=left)
    if left(best) > _HOPELESS:
        return best
    low, high = max(best - 0.04, 0.001), min(best + 0.04, 1.0)
    for _ in range(_STEPS):
        one, two = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
        if left(one) <= left(two):
            high = two
        else:
            low = one
    best = min(found, key=lambda density: found[density])
    for decimals in (1, 2, 3, 4):
        typed = round(best, decimals)
        if left(typed) <= _AS_GOOD * left(best):
            return typed
        if left(typed) < left(best):
            best = typed
    return best
