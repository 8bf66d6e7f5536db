"""sce: keep the entries that vary most between atoms, elect a sign, weigh by mean squares (Wan et al. 2024, arXiv 2408.07990).

What gives it away: entries are dropped of all atoms at once, those in which the atoms differ least; there is no weight to find.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch

from unmerge.recipes.case import Case
from unmerge.recipes.decimals import shortest
from unmerge.recipes.polish import best, ordered
from unmerge.recipes.recipe import BASE, Input, Recipe

#: kept entries nearest to the end of what is kept: how far it may lie beyond the last
_NEIGHBOURS = 30
#: shares of identical weights: worth a second look, and nothing left to find
_PROMISING, _IDENTICAL = 0.5, 0.9995
#: how far the share kept may be from where it seems to end
_REACH = 0.01


def candidates(case: Case, atoms: Sequence[str]) -> Iterator[Recipe]:
    """The share of entries kept, from the least varying one that moved; then decimals nearby."""
    if len(atoms) < 2:
        return
    ends = [_end(case, atoms, tensor) for tensor in case.enough]
    low, high = max(end[0] for end in ends), min(end[1] for end in ends)
    found = _recipe(case, atoms, shortest(low, max(low, high)))
    share = case.identical(found, case.quick)
    if share < _PROMISING:
        return
    if share < _IDENTICAL:
        found = best(case, (_recipe(case, atoms, other) for other in _decimals(low - _REACH, max(low, high) + _REACH)), case.quick, start=found)
    yield ordered(case, found, case.quick[-1:])


def _end(case: Case, atoms: Sequence[str], tensor: str) -> tuple[float, float]:
    """Between which shares of a tensor's varying entries what is kept ends."""
    base, wanted = case.read(BASE, tensor), case.wanted(tensor)
    spread = torch.var(torch.stack([case.read(atom, tensor) - base for atom in atoms]), dim=0, unbiased=False)
    varying = int(torch.count_nonzero(spread))
    moved = spread[(wanted != case.before(tensor)) & (spread > 0)].sort().values
    if len(moved) <= _NEIGHBOURS:
        return 0.0, 1.0
    above, before = (int((spread > moved[place]).sum()) / varying for place in (0, _NEIGHBOURS))
    return above, min(int((spread >= moved[0]).sum()) / varying + above - before, 1.0)


def _decimals(low: float, high: float) -> Iterator[float]:
    """Shares of two decimals in an interval, then of three."""
    for decimals in (2, 3):
        for number in range(math.ceil(low * 10**decimals), math.floor(high * 10**decimals) + 1):
            if 0 < number <= 10**decimals:
                yield number / 10**decimals


def _recipe(case: Case, atoms: Sequence[str], kept: float) -> Recipe:
    inputs = tuple(Input(atom) for atom in atoms)
    return Recipe("sce", inputs, BASE, {} if kept == 1 else {"select_topk": kept}, case.dtype_name)
