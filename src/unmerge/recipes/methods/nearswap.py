"""nearswap: the base, moved towards another model by at most t (alchemonaut 2024, mergekit's own).

    w = min(1, t / |B - A|)      w B + (1 - w) A

What gives it away: the steps away from one model, in the direction of another, have a sharp upper end: t. Smaller differences are
taken over as a whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from unmerge.recipes.by_tensor.angles import pair
from unmerge.recipes.by_tensor.patterns import Estimate, pattern
from unmerge.recipes.by_tensor.settle import SLACK, Patterns, settled
from unmerge.recipes.case import Case, half_spacing
from unmerge.recipes.decimals import around
from unmerge.recipes.polish import best
from unmerge.recipes.recipe import Input, Recipe

#: rounds of finding which steps end at t
_ROUNDS = 30
#: rounding moves small steps all one way: relative distances in which the t is looked for that makes the most weights identical
_REACH = (0.05, 5e-3)
#: a step is explained within this many times half a spacing, mergekit rounds three times; and the share that must be
_LOOSE, _EXPLAINED = 6.0, 0.95


def candidates(case: Case, atoms: Sequence[str]) -> Iterator[Recipe]:
    """t from the mean of the steps that it ends, with either model as the base."""
    first, second = pair(atoms)
    if not second:
        return
    for base, other in ((first, second), (second, first)):
        found = _read_off(case, base, other)
        shape = pattern(found, case.inputs.layers, SLACK[case.dtype]) if found else None
        if shape is None:
            continue

        def build(patterns: Patterns, base: str = base, other: str = other) -> Recipe:
            return Recipe("nearswap", (Input(base), Input(other)), base, {"t": patterns["t"].setting}, case.dtype_name)

        recipe = settled(case, build, {"t": shape})
        for reach in _REACH:
            t = recipe.parameters["t"]
            if isinstance(t, float) and t > 0:
                recipe = best(case, [recipe.with_parameters(t=near) for near in around(t, reach * t)], case.quick, start=recipe)
        yield recipe


def _read_off(case: Case, base: str, other: str) -> dict[str, Estimate]:
    """t of each tensor that tells; nothing as soon as a tensor's steps are not what a nearswap takes."""
    found: dict[str, Estimate] = {}
    for tensor in sorted(case.tensors, key=lambda tensor: tensor not in case.quick):
        before, wanted = case.read(base, tensor).double(), case.wanted(tensor)
        way = case.read(other, tensor).double() - before
        gaps, steps = way.abs(), (wanted.double() - before) * way.sign()
        t = gaps.max()
        for _ in range(_ROUNDS):
            ended = gaps >= t
            if not bool(ended.any()) or bool(t == (t := steps[ended].mean())):
                break
        off = (torch.where(gaps > 0, steps - torch.minimum(gaps, t), wanted.double() - before)).abs()
        if float((off <= _LOOSE * half_spacing(wanted)).double().mean()) < _EXPLAINED:
            return {}
        ended = gaps > t
        if t > 0 and int(ended.sum()) > 1:
            found[tensor] = Estimate(float(t), float(off[ended].square().mean().sqrt() / ended.sum().sqrt()))
    return found
