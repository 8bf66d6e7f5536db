"""From patterns of estimates to the numbers that were typed: short decimals that act best when mergekit's own method runs."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from unmerge.recipes.case import QUICK, Case
from unmerge.recipes.combination import Combination, Lines, combination
from unmerge.recipes.decimals import around, scaled, shortest
from unmerge.recipes.forward import layer_of
from unmerge.recipes.patterns import Estimate, Pattern, influence
from unmerge.recipes.polish import DONE
from unmerge.recipes.recipe import BASE, Recipe

#: a pattern for each setting, by name, and what makes a recipe of them
Patterns = Mapping[str, Pattern]
Build = Callable[[Patterns], Recipe]
#: a setting and its standard error, line by line, of one tensor's combination
Reading = Callable[[str, Combination], tuple[Tensor, Tensor]]

#: how far a typed number may be from its estimate, relative to the largest, beside standard errors: in bfloat16 mergekit rounds angles and weights as well
SLACK = {torch.bfloat16: 6e-3, torch.float16: 1e-3, torch.float32: 2e-6, torch.float64: 1e-9}
#: standard errors that are searched, scales of weights that are tried, rounds over all numbers
_AWAY, _SCALES, _ROUNDS = 5.0, 60, 2
#: what is tried for tensors that tell of a setting by rounding alone
_USUAL = tuple(round(number / 20, 2) for number in range(21))

_T = TypeVar("_T")


def read_off(case: Case, atoms: Sequence[str], readings: Mapping[str, Reading], lines: Lines = Lines.WHOLE) -> dict[str, dict[str, Estimate]]:
    """What each tensor says of some settings: its lines averaged; empty as soon as a tensor is no combination of the atoms."""
    found: dict[str, dict[str, Estimate]] = {name: {} for name in readings}
    for tensor in sorted(case.tensors, key=lambda tensor: tensor not in case.quick):
        combined = combination(case, atoms, tensor, lines)
        if not combined.fits:
            return {}
        for name, reading in readings.items():
            values, errors = reading(tensor, combined)
            known = torch.isfinite(errors) & torch.isfinite(values)
            counts = errors[known].clamp(min=1e-15) ** -2
            if len(counts):
                found[name][tensor] = Estimate(float((values[known] * counts).sum() / counts.sum()), float(counts.sum() ** -0.5))
    return found


def settled(case: Case, build: Build, patterns: Patterns) -> Recipe:
    """The recipe with each number as the shortest decimal around its estimate that gives the most identical weights."""
    found = dict(patterns)
    for _ in range(_ROUNDS if sum(len(pattern.numbers) for pattern in patterns.values()) > 1 else 1):
        before = dict(found)
        for name, start in patterns.items():
            for part, place in start.places:
                if tensors := _counting(case, found[name], part, place):
                    tried = [{**found, name: found[name].with_number(part, place, value)} for value in _around(case, start, part, place)]
                    found = _best(case, tried, build, tensors)
        if found == before:
            break
    return build(_with_rest(case, build, found))


def settled_scale(case: Case, build: Build, patterns: Patterns) -> Recipe:
    """As ``settled``, where a common factor of all numbers hardly acts: first the factor that makes them short decimals."""
    numbers = [value for pattern in patterns.values() for value in pattern.numbers]
    errors = [error for pattern in patterns.values() for part in pattern.gradients for error in part.errors]
    least = SLACK[case.dtype] * max(map(abs, numbers))
    nonzero = [value for value in numbers if abs(value) > least]
    tolerance = SLACK[case.dtype] + _AWAY * max(error / abs(value) for value, error in zip(numbers, errors, strict=True) if abs(value) > least)

    def tried() -> Iterator[dict[str, Pattern]]:
        for values in itertools.islice(scaled(nonzero, tolerance), _SCALES):
            rest = iter(values)
            filled = iter([next(rest) if abs(value) > least else 0.0 for value in numbers])
            yield {name: pattern.with_numbers([next(filled) for _ in pattern.numbers]) for name, pattern in patterns.items()}
        yield dict(patterns)

    found = _best(case, tried(), build, case.quick)
    if case.identical(build(found), case.quick) >= DONE:
        return build(_with_rest(case, build, found))
    return settled(case, build, found)


def _best(case: Case, tried: Iterable[_T], build: Callable[[_T], Recipe], tensors: Sequence[str]) -> _T:
    """What makes the largest share of identical weights, the first of equals."""
    chosen: list[_T] = []
    share = -1.0
    for option in tried:
        if (found := case.identical(build(option), tensors)) > share:
            chosen, share = [option], found
        if share >= DONE:
            break
    return chosen[0]


def _around(case: Case, start: Pattern, part: int, place: int) -> list[float]:
    """Decimals around an estimate, the fewest first; those that lie between decimals, where layers lie between values; itself."""
    gradient = start.gradients[part]
    value, error = gradient.values[place], gradient.errors[place]
    reach = _AWAY * error + SLACK[case.dtype] * max(map(abs, start.numbers))
    found = around(value, reach)
    if len(gradient.values) == case.inputs.layers > 2:
        between = case.inputs.layers - 1
        found += [other / between for other in around(value * between, reach * between)]
    return list(dict.fromkeys([*found, shortest(value - error, value + error)]))


def _counting(case: Case, pattern: Pattern, part: int, place: int) -> list[str]:
    """Some tensors that a number counts for, those that it counts for most first, as many as a quick look takes."""
    counts = influence(len(pattern.gradients[part].values), case.inputs.layers)[:, place]
    held = [tensor for tensor in case.tensors if pattern.holding(tensor) == part and counts[layer_of(tensor) or 0] > 0]
    if counts.all():  # a constant, or two values: any layer will do
        held = [tensor for tensor in held if tensor in case.quick] or held
    chosen: list[str] = []
    size = 0
    for tensor in sorted(held, key=lambda tensor: (-counts[layer_of(tensor) or 0], case.read(BASE, tensor).numel())):
        size += case.read(BASE, tensor).numel()
        if chosen and size > QUICK:
            break
        chosen.append(tensor)
    return chosen


def _with_rest(case: Case, build: Build, found: dict[str, Pattern]) -> dict[str, Pattern]:
    """Tensors in which the models hardly differ tell of a setting by rounding alone: beside filters they may have a value of their own."""
    for name, pattern in found.items():
        if not pattern.last:
            continue
        rest = [tensor for tensor in case.tensors if pattern.with_rest(0.0).holding(tensor) == len(pattern.gradients)]
        if rest and case.identical(build(found), rest) < DONE:
            tried = [found, *({**found, name: pattern.with_rest(value)} for value in _USUAL)]
            found = _best(case, tried, build, rest)
    return found
