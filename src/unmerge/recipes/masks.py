"""Random masks, read off entry by entry: which of the 2^n sums of the atoms' changes is the target?

A merge that keeps entries at random multiplies each atom's kept entries by one factor in every tensor (its weight, times a
rescale). Given the factors, every entry of the target is one of 2^n sums, or of the sums of what agrees with an elected sign.
Expectation-maximisation finds factors, the shares kept, and how those shares depend on an entry's rank in its row: flat under
dare, rising under della. The noise is known: rounding, and at first the error of the factors, which shrinks as they settle.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from unmerge.recipes.case import Flat
from unmerge.recipes.weights import Rule, Weighing, averaged, least_squares

#: into how many steps ranks within a row are divided
BINS = 10
#: relative error of the factors, round by round: for all tensors together, then in one tensor
_TOGETHER = (0.3, 0.2, 0.15, 0.1, 0.1, 0.07, 0.05, 0.05, 0.03, 0.03, 0.02, 0.02)
_ALONE = (0.02, 0.01, 0.003, 1e-3, 1e-4, 1e-5, 0.0)
#: shares kept stay away from 0 and 1
_EDGE = 1e-3


@dataclass(frozen=True)
class Mixture:
    """The law of a target's entries under random masks.

    Attributes:
        weighing: the factors c_i, or under a rule that normalises weights up to scale.
        stretch: (n,) what an entry of each atom is multiplied by before it is weighed; 1 unless the rule normalises.
        keep: (n, BINS) the share kept, by rank within a row, the smallest first.
    """

    weighing: Weighing
    stretch: Tensor
    keep: Tensor

    @property
    def factors(self) -> Tensor:
        """(n,) what an entry that stands alone is multiplied by."""
        return self.stretch if self.weighing.rule is Rule.NORMALISED else self.weighing.weights


@dataclass(frozen=True)
class Reading:
    """Masks read off.

    Attributes:
        mask: (n, N) of the most probable sum.
        kept: (n, N) probability that the entry was kept.
        agrees: (n, N) what takes part in that sum.
        made: (N,) that sum.
        tolerance: (N,) how far rounding may have moved the target from it.
        trusted: (N,) where it is as near as rounding and the factors' error allow.
        likelihood: mean log-likelihood of an entry.
    """

    mask: Tensor
    kept: Tensor
    agrees: Tensor
    made: Tensor
    tolerance: Tensor
    trusted: Tensor
    likelihood: float


def patterns(count: int) -> Tensor:
    """(2^n, n) all ways to keep and drop."""
    return torch.tensor(list(itertools.product((0.0, 1.0), repeat=count)), dtype=torch.float64)


def read(flat: Flat, bins: Tensor, mixture: Mixture, error: float, precision: float) -> Reading:
    """The most probable sum at every entry.

    Args:
        flat: changes of n atoms and the target.
        bins: (n, N) step of each entry's rank within its row.
        mixture: factors and shares kept.
        error: relative error of the factors.
        precision: relative rounding error of one operation.
    """
    changes = flat.atoms * mixture.stretch[:, None]
    ways = patterns(len(changes))
    sums, taking = _sums(changes, mixture.weighing, ways)
    size = (mixture.weighing.weights.abs()[:, None] * changes.abs()) if mixture.weighing.rule is not Rule.NORMALISED else changes.abs()
    tolerance = flat.half * (1 + 1e-6) + 3 * precision * size.sum(0)
    variance = (0.6 * tolerance).square() + error**2 * size.square().sum(0) + 1e-300
    share = torch.stack([row[where] for row, where in zip(mixture.keep.clamp(_EDGE, 1 - _EDGE), bins, strict=True)])
    prior = ways @ share.log() + (1 - ways) @ (1 - share).log()
    score = prior - 0.5 * (flat.target - sums).square() / variance - 0.5 * variance.log()
    total = torch.logsumexp(score, 0)
    kept = ways.T @ (score - total).exp()
    chosen = score.argmax(0)
    mask = ways[chosen].T
    made = sums.gather(0, chosen[None])[0]
    agrees = mask.bool() if taking is None else taking.gather(0, chosen[None, None].expand(1, len(changes), -1))[0]
    trusted = (flat.target - made).abs() <= 3 * tolerance + 4 * error * size.square().sum(0).sqrt()
    return Reading(mask.bool(), kept, agrees & (flat.atoms != 0), made, tolerance, trusted, float(total.mean()))


def _sums(changes: Tensor, weighing: Weighing, ways: Tensor) -> tuple[Tensor, Tensor | None]:
    """(2^n, N) what every way to keep makes, and (2^n, n, N) what takes part in it where not all does."""
    weighed = weighing.weights[:, None] * changes
    total = ways @ weighed
    if weighing.rule is Rule.SUM:
        return total, None
    sign = torch.where(total >= 0, 1.0, -1.0)
    taking = (weighed.sign() == sign[:, None]) & (ways[:, :, None] > 0)
    elected = (weighed * taking).sum(1)
    if weighing.rule is Rule.ELECTED:
        return elected, taking
    divisor = (weighing.weights[:, None] * taking).sum(1)
    return elected / torch.where(divisor == 0, 1.0, divisor), taking


def learn(flat: Flat, bins: Tensor, start: Mixture, precision: float) -> tuple[Mixture, float]:
    """Factors and shares kept from entries of all tensors; and the mean log-likelihood."""
    mixture, likelihood = start, -torch.inf
    for error in _TOGETHER:
        reading = read(flat, bins, mixture, error, precision)
        mixture, likelihood = _updated(flat, bins, mixture, reading, shares=True), reading.likelihood
    return mixture, likelihood


def settle(flat: Flat, bins: Tensor, mixture: Mixture, precision: float) -> tuple[Mixture, Reading]:
    """The factors of one tensor, where the rescale depends on the masks that were drawn, and its masks."""
    for error in _ALONE:
        mixture = _updated(flat, bins, mixture, read(flat, bins, mixture, error, precision), shares=False)
    return mixture, read(flat, bins, mixture, 0.0, precision)


def _updated(flat: Flat, bins: Tensor, mixture: Mixture, reading: Reading, shares: bool) -> Mixture:
    taking = flat.atoms * reading.agrees
    near = reading.trusted
    keep = mixture.keep
    if shares:
        keep = torch.stack(
            [
                torch.zeros(BINS, dtype=torch.float64).index_add_(0, where, row) / torch.bincount(where, minlength=BINS).clamp(min=1)
                for row, where in zip(reading.kept, bins, strict=True)
            ]
        )
    if mixture.weighing.rule is not Rule.NORMALISED:
        rows = taking[:, near] / reading.tolerance[near]
        found = least_squares(rows, flat.target[near] / reading.tolerance[near])
        seen = (taking[:, near] != 0).sum(1) > 10
        weights = torch.where(seen & torch.isfinite(found), found, mixture.weighing.weights)
        return replace(mixture, weighing=replace(mixture.weighing, weights=weights), keep=keep)
    return replace(_normalised(flat, mixture, reading, near), keep=keep)


def _normalised(flat: Flat, mixture: Mixture, reading: Reading, near: Tensor) -> Mixture:
    """Stretches where one atom stands alone, then weights where several do."""
    agrees, target = reading.agrees[:, near], flat.target[near]
    changes = flat.atoms[:, near]
    single = agrees & (agrees.sum(0) == 1)
    mine = changes * single
    seen = single.sum(1) > 10
    stretch = torch.where(seen, (mine @ target) / mine.square().sum(1).clamp(min=1e-300), mixture.stretch)
    weights = averaged(stretch[:, None] * changes * agrees, agrees, target, flat.half[near], 1.0)
    if not bool((torch.isfinite(weights) & (weights > 0)).all()):
        weights = mixture.weighing.weights
    return replace(mixture, weighing=replace(mixture.weighing, weights=weights), stretch=stretch)
