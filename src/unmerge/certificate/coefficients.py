"""The coefficients of present atoms, found in the way that what is left allows.

intervals       rounding explains every weight: the intervals that it leaves are sharper by far. Also where it hides much beside what has no rank.
oblique         something unknown is left: it is projected off; where changes are of a few steps of the grid, off the target before its rounding.
least squares   nothing unknown is left: what remains is noise (dare's masks). Also where small changes were trimmed (ties): no one
                coefficient acted, and what is left has a rank without being unknown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unmerge.certificate.candidates import Candidates
from unmerge.certificate.duplicates import leak
from unmerge.certificate.evidence import TensorEvidence
from unmerge.certificate.identity import Likeness, leaves_more, likeness, likeness_by_weights
from unmerge.certificate.intervals import along_atoms, excludes_zero, is_crowded, moved, spread, widened
from unmerge.certificate.profile import Group, profile
from unmerge.certificate.refined import ROUNDS, Refined, refined
from unmerge.certificate.rounding import FIGURES
from unmerge.certificate.rounding_fit import RoundingFit, rounding_fit
from unmerge.certificate.rounding_order import TOGETHER
from unmerge.certificate.systems import own_answers, own_precisions, reduced, solve
from unmerge.certificate.unrounded import settled
from unmerge.certificate.varying import look_closer
from unmerge.vectors import TaskVector, is_large

Matrix = NDArray[np.float64]

#: the rank of the unknown is this quantile over tensors, since an unknown component need not change all of them
_QUANTILE = 0.75
#: where rounding to the grid has more than this share of the target's squared norm, coefficients shrink with the rounded changes, and the
#: unknown is projected off the target as it was before. Seen at shares of .27 / .08 / .02: 9% to 13% / 1% / .2% too small, and .5% / .3% / .1%
#: off from the target before it was rounded. Answers do not change from .005 to .02
_COARSE = 0.01
#: the share of what this changes that may still be missing. Seen: .02 to .15, the latter where a few rows hold most of what is unknown
_MISSING = 0.2
#: where atoms were rounded first, so was what is unknown, to whole steps that no normal law describes: every coefficient may then be off by this
#: share of the largest relative change. Seen: by .35 of it
_STEPWISE = 0.5
#: where less than this share of an atom is left after projecting, what is unknown covers it: least squares, and the leak in the interval
_KEPT = 0.01
#: a component that contributes less than this share of the target's squared norm is none. Detection limits lie a hundred times higher
_LEAST_SHARE = 1e-6
#: the estimators; the first two are not moved by unknown components: intervals left by rounding, and projecting off what is unknown
INTERVALS, OBLIQUE, LEAST_SQUARES = "intervals", "oblique", "least squares"


@dataclass(frozen=True)
class Measured:
    """Coefficients of k components, and what they leave.

    Attributes:
        coefficients: (k,). Of a component that varies, the mean over its weights.
        interval: (k, 2) at the level ``systems.CONFIDENCE``.
        tensors: (m,) names.
        by_tensor: (m, k) what each tensor says by itself; NaN where it says nothing.
        estimator: ``least squares``, ``intervals`` or ``oblique``.
        unknown_rank: rank above the noise of what is left; None where no tensor can tell.
        unknown_components: how many atoms of the dictionary's usual rank that is.
        trimmed: whether small changes were trimmed, as ties does: then no one coefficient acted, and what is left has a rank of its own.
        rounding_share: what rounding alone would leave of a target made of these components; None without a grid.
        profiles: (k,) the coefficients of each component by part of the model; empty where it has one in all tensors.
        likeness: (k,) whether each is its very atom.
        share: (k,) c^2 ||v||^2 / ||t||^2.
        rounded: how the weights were rounded, where that and the components explain them; else None.
        before_rounding: whether the coefficients come from the target as it was before it was rounded.
    """

    coefficients: Matrix
    interval: Matrix
    tensors: tuple[str, ...]
    by_tensor: Matrix
    estimator: str
    unknown_rank: int | None
    unknown_components: int | None
    trimmed: bool
    rounding_share: float | None
    profiles: tuple[tuple[Group, ...], ...]
    likeness: tuple[Likeness, ...]
    share: Matrix
    rounded: RoundingFit | None = None
    before_rounding: bool = False

    @property
    def clear(self) -> list[int]:
        """Places of the components whose coefficient is known not to be 0, in all tensors or in a part of them.

        All of them under least squares where none varies: then a coefficient near 0 is what is left of noise.
        """
        return [place for place in range(len(self.coefficients)) if self._is_clear(place)]

    def _is_clear(self, place: int) -> bool:
        if self.share[place] < _LEAST_SHARE:
            return False
        if parts := self.profiles[place]:
            return any(excludes_zero(part.interval) for part in parts)
        return self.estimator == LEAST_SQUARES or excludes_zero(self.interval[place])


@dataclass(frozen=True)
class _Left:
    """What the components leave, from the closest look at the target.

    Attributes:
        closer: coefficients with the unknown projected off, and their normal equations.
        told: what is left, for the rank and the identity; ``closer`` but where what is left covers an atom.
        looked_at: the tensors of both.
        varying: (k,) which components have a coefficient in each tensor.
        covered: (k,) which ones are covered by what is left.
        coarse: whether the grid's steps are not small beside the changes.
        doubt: (k,) how far coefficients of the target before its rounding may be off.
        before: whether it is the target before its rounding.
    """

    closer: Refined
    told: Refined
    looked_at: Sequence[TensorEvidence]
    varying: NDArray[np.bool_]
    covered: NDArray[np.bool_]
    coarse: bool
    doubt: Matrix
    before: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(item.tensor for item in self.looked_at)

    @property
    def rank(self) -> int:
        return _quantile(self.told.ranks)

    @property
    def components(self) -> int:
        return _quantile(np.rint(self.told.ranks / [item.usual_rank for item in self.looked_at]))


@dataclass(frozen=True)
class _Estimate:
    """(k,) coefficients, (k, 2) intervals, the estimator's name, and the normal equations of the tensors that it rests on."""

    coefficients: Matrix
    interval: Matrix
    estimator: str
    tensors: tuple[str, ...]
    systems: tuple[Matrix, Matrix]


def measure(some: Candidates) -> Measured:
    """Measure atoms that are in a target."""
    rounded = rounding_fit(some.sample, some.squares) if some.sample else None
    if rounded and rounded.explains:
        return _explained(some, rounded)
    trimmed = bool(some.sample and some.sample.is_trimmed(some.squares))
    left = _left(some, rounded, trimmed)
    if rounded and left.coarse:
        estimate = _by_intervals(some, rounded)
    elif left.rank and not trimmed and bool((left.closer.kept >= _KEPT).all()):
        estimate = _by_projection(some, left)
    else:
        estimate = _by_least_squares(some, left, bool(left.rank and not trimmed))
    coefficients, figures = estimate.coefficients, some.sample.figures if some.sample else FIGURES
    sizes = left.told.taken**2 * np.einsum("mii->mi", some.grams(left.names))
    directions = [item.directions(some.chosen, row) for item, row in zip(left.looked_at, left.told.taken, strict=True)]
    taken_for = int(leaves_more(left.told.excess, np.array(directions, dtype=np.int64)))
    remaining = left.told.remains[:, :, taken_for]
    elsewhere = left.told.elsewhere[:, :, taken_for] if is_crowded(left.closer) else None
    return Measured(
        coefficients=coefficients,
        interval=widened(estimate.interval, figures * np.abs(coefficients)),
        tensors=estimate.tensors,
        by_tensor=own_answers(*estimate.systems),
        estimator=estimate.estimator,
        unknown_rank=left.rank if some.seen else None,
        unknown_components=max(left.components, min(left.rank, 1)) if some.seen and not trimmed else None,
        trimmed=trimmed,
        rounding_share=some.sample.rounding_share(TOGETHER, coefficients) if some.sample else None,
        profiles=_profiles(some, left, coefficients, figures),
        likeness=tuple(
            likeness(remaining[:, place], sizes[:, place], not some.dense[place], bool(left.covered[place]), elsewhere)
            for place in range(len(some.chosen))
        ),
        share=sizes.sum(0) / float(some.products.norm_squared.sum()),
        before_rounding=left.before,
    )


def _explained(some: Candidates, rounded: RoundingFit) -> Measured:
    """The coefficients where rounding and the components explain every weight."""
    k = len(some.chosen)
    return Measured(
        coefficients=rounded.coefficients,
        interval=rounded.interval,
        tensors=some.products.tensors,
        by_tensor=own_answers(*some.systems),
        estimator=INTERVALS,
        unknown_rank=0,
        unknown_components=0,
        trimmed=False,
        rounding_share=rounded.rounding_share,
        profiles=((),) * k,
        likeness=(likeness_by_weights(rounded.identical, rounded.rounding_share),) * k,
        share=(rounded.coefficients * some.lengths) ** 2 / float(some.products.norm_squared.sum()),
        rounded=rounded,
    )


def _left(some: Candidates, rounded: RoundingFit | None, trimmed: bool) -> _Left:
    coarse = bool(some.sample and not trimmed and some.sample.coarseness > _COARSE)
    # where others than these coefficients are taken, only the rank of what is left is wanted: of large tensors one look is enough
    once = (trimmed or coarse) and any(is_large(item.shape) for item in some.seen)
    closer, varying = look_closer(some, 1 if once else ROUNDS)
    told, covered = closer, closer.kept < _KEPT
    if covered.any() and not once:
        # what is left covers these: nothing of them was subtracted. Whether they are in there shows when least squares' share of them is
        field = np.where(covered, some.squares, np.nan_to_num(closer.coefficients))
        told = refined(some.known, some.target, some.looked(field), field, some.watch, 1, varying, some.others)
    left = _Left(closer, told, some.seen, varying, covered, coarse, np.zeros(len(some.chosen)))
    return _before_rounding(some, rounded, left) if rounded and coarse and left.rank and not varying.any() else left


def _before_rounding(some: Candidates, rounded: RoundingFit, left: _Left) -> _Left:
    """What is left of the target as it was before it was rounded, where that can be told."""
    assert some.sample is not None
    looked = some.some(some.looked(left.closer.coefficients))

    def project(vector: TaskVector, guess: Matrix) -> tuple[Matrix, Refined]:
        found = refined(some.known, vector, looked, guess, some.watch, rounds=1, others=some.others)
        return found.coefficients[0], found

    before = settled(some.known, some.target, some.sample, rounded.coefficients, project)
    if not before:
        return left
    raw, (closer, order) = left.closer.coefficients[0], before
    coefficients = closer.coefficients[0]
    change = np.abs(coefficients - raw)
    doubt = _MISSING * change
    if order.atoms_first:
        doubt += _STEPWISE * np.divide(change, np.abs(raw), out=np.zeros_like(raw), where=raw != 0).max() * np.abs(coefficients)
    names = {item.tensor for item in looked}
    return _Left(closer, closer, [item for item in some.seen if item.tensor in names], left.varying, left.covered, False, doubt, before=True)


def _by_intervals(some: Candidates, rounded: RoundingFit) -> _Estimate:
    interval = widened(rounded.interval, leak(some.products, some.chosen, some.without_rank) / some.lengths)
    return _Estimate(rounded.coefficients, interval, INTERVALS, some.products.tensors, some.systems)


def _by_projection(some: Candidates, left: _Left) -> _Estimate:
    systems = left.closer.gram, left.closer.correlation
    coefficients = _mean(left.closer.coefficients, systems[0])
    interval = widened(spread(systems, coefficients, left.varying), moved(some, left.closer, coefficients, left.looked_at) + left.doubt)
    return _Estimate(coefficients, interval, OBLIQUE, left.names, systems)


def _by_least_squares(some: Candidates, left: _Left, unknown: bool) -> _Estimate:
    varying = left.varying
    coefficients = np.where(varying, _mean(left.closer.coefficients, some.grams(left.names)), some.squares)
    if varying.any():
        parts = reduced(*some.systems, varying)
        coefficients[~varying] = solve(parts[0].sum(0), parts[1].sum(0))
    interval = spread(some.systems, coefficients, varying)
    unseen = leak(some.products, some.chosen, some.without_rank) / some.lengths if unknown else along_atoms(some, coefficients)
    return _Estimate(coefficients, widened(interval, unseen), LEAST_SQUARES, some.products.tensors, some.systems)


def _profiles(some: Candidates, left: _Left, coefficients: Matrix, figures: float) -> tuple[tuple[Group, ...], ...]:
    """(k,) the coefficients of each component that varies by part of the model."""
    if not left.varying.any():
        return ((),) * len(some.chosen)
    precision = own_precisions(left.closer.gram)
    leaks = moved(some, left.closer, coefficients, left.looked_at)
    relative = np.divide(leaks, np.abs(coefficients), out=np.zeros_like(leaks), where=coefficients != 0)
    return tuple(
        profile(left.closer.coefficients[:, place], precision[:, place], left.names, some.noisy, float(relative[place]), figures)
        if left.varying[place]
        else ()
        for place in range(len(some.chosen))
    )


def _mean(coefficients: Matrix, gram: Matrix) -> Matrix:
    """(k,) coefficients over tensors, weighed by what each tensor has of the atom."""
    sizes = np.einsum("mii->mi", gram)
    whole = sizes.sum(0)
    return np.asarray(np.divide((np.nan_to_num(coefficients) * sizes).sum(0), whole, out=np.zeros(len(whole)), where=whole > 0))


def _quantile(values: NDArray[Any]) -> int:
    return int(np.quantile(values, _QUANTILE, method="lower")) if len(values) else 0
