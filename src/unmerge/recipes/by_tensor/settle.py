"""From patterns of estimates to the numbers that were typed: short decimals that act best when mergekit's own method runs."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from unmerge.recipes.by_tensor.combination import Combination, Lines, combination
from unmerge.recipes.by_tensor.patterns import Estimate, Pattern, influence
from unmerge.recipes.case import QUICK, Case
from unmerge.recipes.decimals import around, scaled, shortest
from unmerge.recipes.forward import layer_of
from unmerge.recipes.polish import DONE
from unmerge.recipes.recipe import BASE, Recipe

#: a pattern for each setting, by name, and what makes a recipe of them
Patterns = Mapping[str, Pattern]
Build = Callable[[Patterns], Recipe]
#: (lines, settings) values and standard errors, from one tensor's combination
Reading = Callable[[str, Combination], tuple[Tensor, Tensor]]

#: how far a typed number may be from its estimate, relative to the largest, beside standard errors: in bfloat16 mergekit rounds
#: angles and weights as well
SLACK = {torch.bfloat16: 6e-3, torch.float16: 1e-3, torch.float32: 2e-6, torch.float64: 1e-9}
#: how far numbers may be from sharpened ones
SHARP = {torch.bfloat16: 1e-5, torch.float16: 2e-6, torch.float32: 3e-8, torch.float64: 1e-12}
#: standard errors that are searched, scales of weights that are tried, rounds over all numbers
_AWAY, _SCALES, _ROUNDS = 5.0, 60, 2
#: shares of identical weights below which sharpening will not help, on a few tensors and on all: it is another method
_HOPEFUL, _NEARLY = 0.25, 0.95
#: what is tried for tensors that tell of a setting by rounding alone
_USUAL = tuple(round(number / 20, 2) for number in range(21))

_T = TypeVar("_T")


def read_off(
    case: Case,
    atoms: Sequence[str],
    names: Sequence[str],
    reading: Reading,
    lines: Lines = Lines.WHOLE,
    tensors: Sequence[str] | None = None,
) -> dict[str, dict[str, Estimate]]:
    """What each tensor says of some settings, its lines averaged; empty as soon as a tensor is no combination of the atoms.

    Args:
        case: target and models.
        atoms: what the tensors are combinations of.
        names: of the settings.
        reading: from a combination to values and standard errors of these settings, line by line.
        lines: what has coefficients of its own.
        tensors: those that are read, all by default.
    """
    found: dict[str, dict[str, Estimate]] = {name: {} for name in names}
    for tensor in case.tensors if tensors is None else tensors:
        combined = combination(case, atoms, tensor, lines)
        if not combined.fits:
            return {}
        values, errors = reading(tensor, combined)
        known = (torch.isfinite(errors) & torch.isfinite(values)).all(1)
        if not bool(known.any()):
            continue
        counts = errors[known].clamp(min=1e-15) ** -2
        means = (values[known] * counts).sum(0) / counts.sum(0)
        for name, value, error in zip(names, means, counts.sum(0) ** -0.5, strict=True):
            found[name][tensor] = Estimate(float(value), float(error))
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
    """As ``settled``, where a common factor of all numbers hardly acts: that which makes them short decimals."""
    found = _best(case, scales(case, patterns), build, case.quick, case.tensors)
    for tensors, steps in ((None, SLACK[case.dtype]), (case.tensors, SLACK[case.dtype] / 10)):
        share = case.identical(build(found), case.quick)
        if share < _HOPEFUL or (tensors and share < _NEARLY) or case.identical(build(found), case.tensors) >= DONE:
            break
        patterns = sharpened(case, build, patterns, steps, tensors)
        tried = itertools.chain([found], *(scales(case, patterns, tolerance) for tolerance in (10 * SHARP[case.dtype], SHARP[case.dtype])))
        found = _best(case, tried, build, case.quick, case.tensors)
    return build(_with_rest(case, build, found))


def scales(case: Case, patterns: Patterns, tolerance: float | None = None) -> Iterator[dict[str, Pattern]]:
    """The numbers times factors that make them short decimals, the shortest first; then as they are.

    Args:
        case: what they are of.
        patterns: the numbers.
        tolerance: relative, of each of them; of their standard errors by default.
    """
    numbers = [value for pattern in patterns.values() for value in pattern.numbers]
    errors = [error for pattern in patterns.values() for part in pattern.gradients for error in part.errors]
    large = [abs(value) > SLACK[case.dtype] * max(map(abs, numbers)) for value in numbers]
    if tolerance is None:
        off = max(error / abs(value) for value, error, shows in zip(numbers, errors, large, strict=True) if shows)
        tolerance = SLACK[case.dtype] + _AWAY * off
    nonzero = [value for value, shows in zip(numbers, large, strict=True) if shows]
    for values in itertools.islice(scaled(nonzero, tolerance), _SCALES):
        rest = iter(values)
        yield filled(patterns, [next(rest) if shows else 0.0 for shows in large])
    yield dict(patterns)


def filled(patterns: Patterns, values: Sequence[float]) -> dict[str, Pattern]:
    """The same patterns with other numbers, in their order."""
    rest = iter(values)
    return {name: pattern.with_numbers([next(rest) for _ in pattern.numbers]) for name, pattern in patterns.items()}


def sharpened(case: Case, build: Build, patterns: Patterns, steps: float, tensors: Sequence[str] | None = None) -> dict[str, Pattern]:
    """Each number but the largest moved to where most weights are identical, in steps that become smaller.

    Args:
        case: target and models.
        build: makes a recipe of patterns.
        patterns: where to begin.
        steps: the first ones, relative.
        tensors: those that are compared; some that each number counts for by default.
    """
    found = dict(patterns)
    _, held = max((abs(value), (name, *place)) for name, shape in found.items() for place, value in zip(shape.places, shape.numbers, strict=True))
    while steps > SHARP[case.dtype] / 4:
        for name, shape in patterns.items():
            for part, place in shape.places:
                if (name, part, place) == held:
                    continue
                start, counting = found[name].gradients[part].values[place], tensors or _counting(case, found[name], part, place)
                tried = [start * (1 + steps * side) for side in (0.0, -1.0, 1.0, -0.5, 0.5)]
                found = _best(case, [{**found, name: found[name].with_number(part, place, value)} for value in tried], build, counting)
        steps /= 2
    return found


def snapped(case: Case, pattern: Pattern) -> Pattern:
    """Each number as the shortest decimal near it: many numbers can be settled one by one only where none is far off."""
    reach = SLACK[case.dtype] * max(map(abs, pattern.numbers))
    return pattern.with_numbers([shortest(value - reach, value + reach) for value in pattern.numbers])


def _best(case: Case, tried: Iterable[_T], build: Callable[[_T], Recipe], tensors: Sequence[str], more: Sequence[str] = ()) -> _T:
    """What makes the largest share of identical weights, the first of equals.

    Args:
        case: target and models.
        tried: to choose from.
        build: makes a recipe of a choice.
        tensors: those that are compared.
        more: those that choices which leave nothing to gain in the first are compared on as well.
    """
    chosen: list[_T] = []
    best = -1.0
    for option in tried:
        share = case.identical(build(option), tensors)
        if share >= DONE and more:
            share = 1 + case.identical(build(option), more)
        if share > best:
            chosen, best = [option], share
        if best >= DONE + bool(more):
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
