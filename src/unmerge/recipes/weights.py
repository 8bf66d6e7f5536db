"""Weights of a merge whose masks are known: least squares, by the rule that combines what is kept.

    sum         t = sum w_i m_i d_i
    elected     t = sum of those w_i m_i d_i that have the sign of their sum
    normalised  lambda times the same, divided by the sum of those w_i

Where one atom alone survives, a normalised merge leaves lambda d_i: that gives lambda. The weights follow, up to scale, from
sum w_i a_i (lambda d_i - t) = 0 over the entries where several survive (a_i says which), and then from Gauss-Newton steps. The
sign that was elected is first taken from the target, then from the fitted weights. Entries that the fit is far from, for
masks are known only nearly, are left out and the fit is repeated.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor

from unmerge.recipes.case import Flat

#: rounds of fitting and electing, and of narrowing down to violated intervals
_ROUNDS, _STEPS = 6, 6
#: a weighed sum is as good as 0 when it is this share of its terms
_UNCLEAR = 0.02
#: entries that a fit looks at, unless told
_FITTED = 30_000


class Rule(Enum):
    """How kept changes are combined."""

    SUM = "sum"
    ELECTED = "elected"
    NORMALISED = "normalised"


@dataclass(frozen=True)
class Weighing:
    """Weights of n atoms under a rule.

    Attributes:
        rule: how kept changes are combined.
        weights: (n,); under a rule that normalises the largest is 1.
        factor: lambda; 1 unless the rule normalises.
    """

    rule: Rule
    weights: Tensor
    factor: float = 1.0

    def made(self, changes: Tensor, target: Tensor) -> Tensor:
        """(N,) the change that a merge makes of (n, N) kept changes; where weights do not tell the elected sign, the target does."""
        if self.rule is Rule.SUM:
            return self.weights @ changes
        agrees = _agreeing(changes, self.weights, target)
        elected = self.weights @ (changes * agrees)
        if self.rule is Rule.ELECTED:
            return elected
        divisor = self.weights @ agrees.double()
        return self.factor * elected / torch.where(divisor == 0, 1.0, divisor)


def _agreeing(changes: Tensor, weights: Tensor, target: Tensor) -> Tensor:
    """(n, N) which changes have the elected sign. Equal weights make many sums nearly 0, whose sign is that of a rounding error."""
    weighed = weights[:, None] * changes
    total = weighed.sum(0)
    sign = torch.where((total.abs() > _UNCLEAR * weighed.abs().sum(0)) | (target == 0), total, target)
    return (weighed != 0) & ((weighed > 0) == (sign >= 0))


def fit(flat: Flat, changes: Tensor, rule: Rule, scale: float, most: int = _FITTED) -> Weighing:
    """The weights under which kept changes come nearest to the target.

    Args:
        flat: the target.
        changes: (n, N) that were kept, about right.
        rule: how they are combined.
        scale: entries with larger residuals are left out of a second fit.
        most: entries that are looked at.
    """
    some = torch.nonzero((changes != 0).any(0))[:, 0]
    some = some[:: max(1, len(some) // most)]
    changes, target, half = changes[:, some], flat.target[some], flat.half[some]
    found = _fit(changes, target, half, rule)
    for _ in range(2):
        trusted = (found.made(changes, target) - target).abs() <= 2 * half + scale
        if bool(trusted.all()) or int(trusted.sum()) < 10 * len(changes):
            break
        found = _fit(changes[:, trusted], target[trusted], half[trusted], rule)
    return found


def _fit(changes: Tensor, target: Tensor, half: Tensor, rule: Rule) -> Weighing:
    if rule is Rule.SUM:
        return Weighing(rule, within_rounding(changes, target, half))
    agrees, found = changes.sign() * target.sign() > 0, Weighing(rule, torch.ones(len(changes), dtype=torch.float64))
    for _ in range(_ROUNDS):
        if rule is Rule.ELECTED:
            weights, factor = within_rounding(changes * agrees, target, half), 1.0
        else:
            factor = _factor(changes, agrees, target)
            weights = averaged(changes, agrees, target, half, factor)
        before, found = found, Weighing(rule, weights, factor)
        if torch.equal(before.weights, weights):
            break
        agrees = _agreeing(changes, weights, target)
    return found


def least_squares(rows: Tensor, target: Tensor) -> Tensor:
    """(n,) the least-squares coefficients of (n, N) rows."""
    products = rows @ rows.T
    ridge = 1e-12 * products.diagonal().max().clamp(min=1e-300) * torch.eye(len(rows), dtype=rows.dtype)
    found: Tensor = torch.linalg.solve(products + ridge, rows @ target)
    return found


def within_rounding(rows: Tensor, target: Tensor, half: Tensor) -> Tensor:
    """(n,) coefficients c that put the least squared violations on |t - sum c_i v_i| <= half.

    Every rounded weight says which interval its true value lies in; least squares would shrink c where most changes are
    rounded away. The sum of squared violations is convex; each step is Newton's, on the entries that are violated.
    """
    found = least_squares(rows, target)
    for _ in range(_STEPS):
        off = target - found @ rows
        over = off.abs() > half
        if int(over.sum()) <= 10 * len(rows):
            break
        found = found + least_squares(rows[:, over], (off - half * off.sign())[over])
    return found


def _factor(changes: Tensor, agrees: Tensor, target: Tensor) -> float:
    """Lambda, where one atom alone survived: there its weight cancels."""
    single = agrees.sum(0) == 1
    if not bool(single.any()):
        return 1.0
    values = (changes * agrees).sum(0)[single]
    large = values.abs() >= values.abs().median()  # rounding moves a small one's ratio most
    return float((target[single] / values)[large].median())


def averaged(changes: Tensor, agrees: Tensor, target: Tensor, half: Tensor, factor: float) -> Tensor:
    """The weights of an average, the largest 1, from the entries where several take part.

    Args:
        changes: (n, N) of the atoms, 0 where they take no part.
        agrees: (n, N) who takes part.
        target: (N,) factor x sum of w_i c_i / sum of the w_i that take part.
        half: (N,) how far rounding may have moved it.
        factor: lambda.
    """
    several = agrees.sum(0) >= 2
    ones = torch.ones(len(changes), dtype=torch.float64)
    if len(changes) == 1 or not bool(several.any()):
        return ones
    changes, agrees, target, half = changes[:, several], agrees[:, several], target[several], half[several]
    rows = (factor * changes - target) * agrees
    weights, trusted = ones, torch.ones(rows.shape[1], dtype=torch.bool)
    for _ in range(_ROUNDS):
        used = rows[:, trusted]
        weights = torch.linalg.eigh(used @ used.T)[1][:, 0]
        weights = weights / weights[weights.abs().argmax()]
        off = (weights @ rows).abs() / (weights[:, None] * agrees).sum(0).abs().clamp(min=1e-9)
        trusted = off <= torch.maximum(4 * half, 10 * off[trusted].median())
    for step in range(2 * _STEPS):
        divisor = (weights[:, None] * agrees).sum(0)
        divisor = torch.where(divisor.abs() < 1e-9, 1.0, divisor)
        made = factor * (weights[:, None] * changes * agrees).sum(0) / divisor
        off = target - made
        slack = half if step >= _STEPS else torch.zeros_like(half)
        over = trusted & (off.abs() > slack)
        if int(over.sum()) <= 10 * len(weights):
            break
        slopes = ((factor * changes - made) * agrees / divisor)[:, over]
        moved = weights + least_squares(slopes, (off - slack * off.sign())[over])
        weights = moved / moved[moved.abs().argmax()]
    return weights
