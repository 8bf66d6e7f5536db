"""Which order of rounding explains the weights, and with which coefficients.

Every order is fitted on some of the weights: where the sum of the components must lie follows from the cells of the weights and from
the roundings before the last, which follow from the coefficients; so these are fitted, and what was rounded before computed anew,
until still. The order that gives the largest share of the weights exactly is taken. Those that give as many, up to chance, tie.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unmerge.certificate.float_grid import cell
from unmerge.certificate.rounding import FIGURES, Sample
from unmerge.certificate.rounding_order import Order, orders, swaps

Matrix = NDArray[np.float64]

#: weights on which orders are compared
_COMPARED = 60_000
#: rounds of coefficients from roundings and roundings from coefficients; the relative change below which they are still
_ROUNDS, _STILL = 8, 1e-7
#: secants: how many, how many of them may bring nothing, and how long the first, the longest and the shortest are, relative to the coefficients
_SECANTS, _PATIENCE, _FIRST_STEP, _LONGEST, _SHORTEST = 16, 3, 0.05, 0.3, 1e-5
#: a base that is stored so many times finer than the target's grid rounds nothing that is merged into it: float32 beside 16 bits
_FINER = 1024
#: an order is worse than the best where of the weights that only one of them gives exactly, the best gives more, by so many standard
#: deviations of chance
_WORSE = 4.0
#: share of the weights that may lie outside their intervals where nothing unknown is in the target. Seen, with 50% to 92% of the weights
#: unchanged: below .01 without an unknown component, .06 to .3 with one
_OUTSIDE = 0.02
#: and as a share of the weights that changed: where nearly none did, no atom at all would leave few outside
_OF_CHANGED = 0.25


@dataclass(frozen=True)
class RoundingFit:
    """Coefficients of k components under the order of rounding that explains a target best.

    Attributes:
        coefficients: (k,).
        interval: (k, 2) that holds them if the order is right and nothing unknown is in the target.
        order: of rounding.
        ties: the orders that give as many weights exactly, this one among them.
        identical: of the weights that changed, or would have, the share that comes out exactly.
        explains: whether components, order and rounding alone explain the target: nearly no weight is out of its interval.
        rounding_share: what rounding leaves of a target made of these components.
    """

    coefficients: Matrix
    interval: Matrix
    order: Order
    ties: tuple[Order, ...]
    identical: float
    explains: bool
    rounding_share: float

    @property
    def is_told(self) -> bool:
        """Whether one order explains the target, and no other as well."""
        return self.explains and len(self.ties) == 1


def rounding_fit(sample: Sample, start: Matrix) -> RoundingFit:
    """Find the order of rounding that explains some weights best, and the coefficients under it.

    Args:
        sample: the weights, and what k components would have changed in them.
        start: (k,) a first guess, for instance least squares.
    """
    ties, coefficients = _compared(sample.thinned(_COMPARED), start)
    order = ties[0]
    coefficients = _fitted(sample, order, coefficients)
    acting = order.acting(coefficients, sample)
    if snapped := acting is not coefficients:
        acting = _best_numbers(sample, order, acting)
    intervals = sample.intervals(order, acting)
    outside = float((intervals.outside(acting).abs() > sample.on_the_way(acting)).double().mean())
    forward, target = order.forward(sample, acting), sample.target
    counted = (sample.change != 0) | (forward != sample.base)
    interval = _numbers_as_good(sample, order, acting) if snapped else intervals.interval(coefficients)
    reach = (FIGURES if snapped else sample.figures) * np.abs(acting)
    return RoundingFit(
        coefficients=acting,
        interval=interval + np.stack([-reach, reach], 1),
        order=order,
        ties=ties,
        identical=float((forward == target)[counted].double().mean()) if bool(counted.any()) else 1.0,
        explains=outside <= min(_OUTSIDE, _OF_CHANGED * float((sample.change != 0).double().mean())),
        rounding_share=sample.rounding_share(order, acting),
    )


def _compared(sample: Sample, start: Matrix) -> tuple[tuple[Order, ...], Matrix]:
    """The orders that give most of the weights exactly, simplest first, and coefficients under the first of them."""
    rounds_base = bool((sample.on_grid(sample.base) != sample.base).any())
    rounds_parts = any(torch.finfo(dtype).eps > torch.finfo(torch.float32).eps for dtype in sample.grids)
    rounds_atoms = any(torch.finfo(base).eps * _FINER >= torch.finfo(grid).eps for base, grid in zip(sample.stored, sample.grids, strict=True))
    fits: list[tuple[Order, Matrix]] = []
    for order in orders(len(start), rounds_base=rounds_base, rounds_parts=rounds_parts, rounds_atoms=rounds_atoms):
        guess = max([found for _, found in fits], key=lambda found: int(_exact(sample, order, found).sum()), default=start)
        fits.append(_best_sequence(sample, order, _fitted(sample, order, guess)))
    exact = [_exact(sample, *fit) for fit in fits]
    best = max(exact, key=lambda share: int(share.sum()))
    ties = [fit for fit, share in zip(fits, exact, strict=True) if not _is_worse(share, best)]
    return tuple(order for order, _ in ties), ties[0][1]


def _fitted(sample: Sample, order: Order, coefficients: Matrix) -> Matrix:
    """(k,) coefficients under an order, from a first guess."""
    if order.sequence:
        return _by_secants(sample, order, coefficients)
    for _ in range(1 if order.is_linear else _ROUNDS):
        new = sample.intervals(order, order.acting(coefficients, sample)).fit(coefficients)
        moved, coefficients = np.abs(new - coefficients).max(), new
        if moved <= _STILL * np.abs(new).max():
            break
    return coefficients


def _by_secants(sample: Sample, order: Order, coefficients: Matrix) -> Matrix:
    """(k,) the coefficients with which the order gives the target: what is wrong is then orthogonal to every atom.

    What is rounded between two atoms may hide all of the first one, so that the intervals of the last rounding say nothing of it. How the
    merged weights answer to a coefficient is measured instead, on steps as long as those that the coefficients still make.
    """
    best, most, still = coefficients, -1, 0
    step = _FIRST_STEP * np.maximum(np.abs(coefficients), np.abs(coefficients).max() / 10)
    for _ in range(_SECANTS):
        given = order.forward(sample, coefficients)
        wrong = sample.target - given
        if (count := int((wrong == 0).sum())) > most:
            best, most, still = coefficients, count, 0
        elif (still := still + 1) == _PATIENCE:
            break
        if count == len(wrong):
            break
        moved = [order.forward(sample, coefficients + row) - given for row in np.diag(step)]
        answer = (sample.atoms @ torch.stack(moved).T).numpy() / step
        change = np.linalg.lstsq(answer, (sample.atoms @ wrong).numpy(), rcond=1e-9)[0]
        change = np.clip(change, -_LONGEST * np.abs(coefficients).max(), _LONGEST * np.abs(coefficients).max())
        coefficients = coefficients + change
        step = np.maximum(np.abs(change), _SHORTEST * np.abs(coefficients).max())
    return best


def _best_sequence(sample: Sample, order: Order, coefficients: Matrix) -> tuple[Order, Matrix]:
    """Exchange neighbours in a sequence as long as more weights come out exactly."""
    most = int(_exact(sample, order, coefficients).sum())
    while order.sequence:
        found = [(int(_exact(sample, other, coefficients).sum()), other) for other in swaps(order)]
        count, better = max(found, key=lambda entry: entry[0])
        if count <= most:
            break
        most, order, coefficients = count, better, _fitted(sample, better, coefficients)
    return order, coefficients


def _best_numbers(sample: Sample, order: Order, acting: Matrix) -> Matrix:
    """Exchange coefficients on the grid for their neighbours there as long as more weights come out exactly."""
    most = int(_exact(sample, order, acting).sum())
    while True:
        below, above = (2 * side.numpy() for side in cell(torch.from_numpy(acting), sample.grids[0]))
        others = [acting + row for row in (*np.diag(above), *np.diag(-below))]
        count, best = max(((int(_exact(sample, order, other).sum()), place) for place, other in enumerate(others)), key=lambda found: found[0])
        if count <= most:
            return acting
        most, acting = count, others[best]


def _numbers_as_good(sample: Sample, order: Order, acting: Matrix) -> Matrix:
    """(k, 2) coefficients on the grid, from the lowest to the highest neighbour that gives as many weights exactly, up to chance."""
    best, interval = _exact(sample, order, acting), np.stack([acting, acting], 1)
    for side, widths in zip((-1, 1), cell(torch.from_numpy(acting), sample.grids[0]), strict=True):
        for place, row in enumerate(np.diag(2 * side * widths.numpy())):
            if not _is_worse(_exact(sample, order, acting + row), best):
                interval[place, (side + 1) // 2] += row[place]
    return interval


def _exact(sample: Sample, order: Order, coefficients: Matrix) -> Tensor:
    """(w,) which weights a merge in this order gives exactly."""
    return order.forward(sample, order.acting(coefficients, sample)) == sample.target


def _is_worse(share: Tensor, best: Tensor) -> bool:
    """Whether fewer weights come out exactly than with the best order, by more than chance."""
    more, fewer = int((best & ~share).sum()), int((share & ~best).sum())
    return more - fewer > _WORSE * math.sqrt(more + fewer)
