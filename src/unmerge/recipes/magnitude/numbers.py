"""From fitted weights to the numbers that were typed: what makes identical weights decides.

A merge rounds its weights to its dtype and sums in it, so that numbers that differ by a hair make different targets. Short
decimals near the fit are tried first, then every cell of the dtype around it, one weight after the other.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from unmerge.recipes.decimals import cell, nearby, scaled, shortest
from unmerge.recipes.magnitude.sums import Sums
from unmerge.recipes.weights import Rule, Weighing

#: how far, relatively, typed weights may be from fitted ones
NEAR = {torch.bfloat16: 4e-3, torch.float16: 1e-3, torch.float32: 1e-6, torch.float64: 1e-12}
#: weights compared while scales are sought, and while cells are
_FEW, _MANY = 2048, 16_384
#: a share of identical weights from which nothing is left to gain, and one below which more was done than weighing
_DONE, _DOUBTFUL = 0.99999, 0.9995
#: scales of weights that are tried, together, cells to either side or decimals nearby, passes over the weights
_SCALES, _TOGETHER, _CELLS, _DECIMALS, _ROUNDS = 20_000, 500, 3, 24, 8
#: trials that are moved from cell to cell
_STARTS = 10
#: lambdas that are tried, those nearest to 1 first: powers of two between them act the same
_LAMBDAS = sorted((number / 100 for number in range(5, 201) if number != 100), key=lambda factor: abs(math.log(factor)))
#: at most so many inputs are put into every order
_ORDERED = 6

#: (C, n) weights that are tried with one lambda
Trial = tuple[Tensor, float]


@dataclass(frozen=True)
class Numbers:
    """Weights of n atoms as they may have been typed.

    Attributes:
        weights: in the order of the atoms.
        factor: lambda.
        order: of the inputs.
        normalised: whether the sum is divided by the weights that take part.
        share: of identical weights in a sample.
    """

    weights: tuple[float, ...]
    factor: float
    order: tuple[int, ...]
    normalised: bool
    share: float


def typed(sums: Sums, weighing: Weighing) -> Numbers:
    """The numbers near a fit that make the most identical weights.

    Args:
        sums: sparsified changes and the target.
        weighing: fitted weights.
    """
    dtype = sums.wanted.dtype
    moved = torch.nonzero((sums.wanted != sums.base) & (sums.deltas != 0).any(0))[:, 0]
    sample = sums.some(moved[:: max(1, len(moved) // _MANY)])
    fitted = [float(weight) for weight in weighing.weights]
    if sums.normalised:
        factor = shortest(weighing.factor * (1 - NEAR[dtype]), weighing.factor * (1 + NEAR[dtype]))
        return _found(sample, ((rows, factor) for rows in _scales(fitted, dtype)))
    found = _found(sample, [(_short(fitted, dtype), 1.0)])
    if found.share < _DOUBTFUL:
        multiplied = ((_short([value / factor for value in fitted], dtype)[:1], factor) for factor in _LAMBDAS)
        found = max(found, _found(sample, multiplied), key=lambda numbers: numbers.share)
    if found.share < _DOUBTFUL and weighing.rule is Rule.SUM:
        total = shortest(sum(fitted) * (1 - NEAR[dtype]), sum(fitted) * (1 + NEAR[dtype]))
        averaged = _found(replace(sample, normalised=True), ((rows, total) for rows in _scales(fitted, dtype)))
        found = max(found, averaged, key=lambda numbers: numbers.share)
    return found


def _short(values: Sequence[float], dtype: torch.dtype) -> Tensor:
    """(4, n) the values as short decimals, nearer and nearer, and as they are."""
    rows = [[shortest(*sorted((value * (1 - near), value * (1 + near)))) for value in values] for near in (NEAR[dtype] / part for part in (2, 8, 32))]
    return torch.tensor([*rows, values], dtype=torch.float64)


def _scales(direction: Sequence[float], dtype: torch.dtype) -> Iterator[Tensor]:
    """(C, n) multiples of a direction: short decimals, then every scale up to a power of two, which changes no rounding."""
    multiples = itertools.islice(scaled(direction, NEAR[dtype]), _SCALES)
    while rows := list(itertools.islice(multiples, _TOGETHER)):
        yield torch.tensor(rows, dtype=torch.float64)
    unit = torch.tensor(direction, dtype=torch.float64) / max(abs(value) for value in direction)
    yield torch.linspace(0.5, 1.0, _TOGETHER, dtype=torch.float64)[:, None] * unit


def _found(sample: Sums, trials: Iterable[Trial]) -> Numbers:
    """The best of the trials, put into order and moved from cell to cell."""
    few = sample.some(_simple(sample))
    starts: list[tuple[float, Tensor, float]] = []
    for rows, factor in trials:
        shares = few.shares(rows, factor)
        starts += [(float(shares[place]), rows[place], factor) for place in shares.topk(min(_STARTS, len(shares))).indices]
        starts = sorted(starts, key=lambda start: -start[0])[:_STARTS]
        if starts[0][0] >= _DONE:
            break
    best: Numbers | None = None
    for _, weights, start in starts:
        order, share = _order(sample, weights, start)
        climbed, acting, share = _climbed(sample.ordered(order), weights[list(order)], start, share)
        if best is None or share > best.share:
            put = dict(zip(order, _decimals(climbed, sample), strict=True))
            best = Numbers(tuple(put[place] for place in range(len(order))), acting, order, sample.normalised, share)
        if share >= _DOUBTFUL:
            break
    assert best is not None
    return best


def _simple(sample: Sums) -> Tensor:
    """A few weights in which the order of the inputs does not show, where there are such: at most two take part."""
    simple = torch.nonzero((sample.deltas != 0).sum(0) == min(2, len(sample.deltas)))[:, 0]
    chosen = simple if len(simple) >= _FEW // 4 else torch.arange(sample.deltas.shape[1])
    return chosen[:: max(1, len(chosen) // _FEW)]


def _order(sample: Sums, weights: Tensor, factor: float) -> tuple[tuple[int, ...], float]:
    """The order of the inputs that makes the most identical weights: sums in floating point depend on it."""
    present = tuple(range(len(weights)))
    share = float(sample.shares(weights[None], factor))
    if not 3 <= len(weights) <= _ORDERED or share >= _DONE:
        return present, share
    most = torch.argsort((sample.deltas != 0).sum(0), descending=True)[:_FEW]
    few = sample.some(most)
    tried = {order: float(few.ordered(order).shares(weights[list(order)][None], factor)) for order in itertools.permutations(present)}
    order = max(tried, key=lambda name: tried[name])
    return order, float(sample.ordered(order).shares(weights[list(order)][None], factor))


def _climbed(sample: Sums, weights: Tensor, factor: float, share: float) -> tuple[Tensor, float, float]:
    """Move one weight after the other, and lambda, while that makes more weights identical."""
    for _ in range(_ROUNDS):
        before = share
        for place in range(len(weights)):
            if share >= _DONE:
                return weights, factor, share
            tried = _neighbours(weights[place], sample)
            rows = weights.repeat(len(tried), 1)
            rows[:, place] = tried
            shares = sample.shares(rows, factor)
            if float(shares.max()) > share:
                share, weights = float(shares.max()), rows[int(shares.argmax())]
        for other in nearby(factor, NEAR[sample.wanted.dtype]) if factor != 1 else ():
            if (reached := float(sample.shares(weights[None], other))) > share:
                share, factor = reached, other
        if share == before:
            break
    return weights, factor, share


def _neighbours(value: Tensor, sample: Sums) -> Tensor:
    """The values of the merge's dtype to either side of a number's own; where that is finer than the target's, decimals nearby."""
    dtype, near = sample.deltas.dtype, NEAR[sample.wanted.dtype]
    if dtype != sample.wanted.dtype:
        return torch.tensor(nearby(float(value), near)[:_DECIMALS] or [float(value)], dtype=torch.float64)
    found = []
    for direction in (-torch.inf, torch.inf):
        other = value.to(dtype)
        for _ in range(_CELLS):
            other = torch.nextafter(other, torch.tensor(direction, dtype=dtype))
            found.append(other.double())
    return torch.stack(found)


def _decimals(weights: Tensor, sample: Sums) -> list[float]:
    """The shortest decimals that act the same; at the power of two that makes them shortest, where a common one does not act."""
    choices = []
    for power in range(-3, 4) if sample.normalised else range(1):
        values = [shortest(*cell(float(weight) * 2.0**power, sample.deltas.dtype)) for weight in weights]
        far = abs(math.log2(max(abs(value) for value in values)))
        choices.append((far > 1, sum(len(repr(value)) for value in values), far, values))
    return min(choices, key=lambda choice: choice[:3])[3]
