"""The coefficients of present atoms, found in the way that what is left allows.

intervals       rounding explains every weight: the intervals that it leaves are sharper by far. Also where it hides much beside what has no rank.
oblique         something unknown is left: it is projected off; where changes are of a few steps of the grid, off the target before its rounding.
least squares   nothing unknown is left: what remains is noise (dare's masks). Also where small changes were trimmed (ties): no one
                coefficient acted, and what is left has a rank without being unknown.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unmerge.certificate.directions import Directions
from unmerge.certificate.duplicates import leak
from unmerge.certificate.evidence import DIRECTIONS, TensorEvidence, low_rank
from unmerge.certificate.identity import Likeness, leaves_more, likeness, likeness_by_weights
from unmerge.certificate.oblique import oblique
from unmerge.certificate.profile import Group, profile, varies
from unmerge.certificate.refined import ROUNDS, Looked, Refined, refined
from unmerge.certificate.rounding import FIGURES, Sample
from unmerge.certificate.rounding_fit import RoundingFit, rounding_fit
from unmerge.certificate.rounding_order import TOGETHER
from unmerge.certificate.systems import jackknife_interval, own_answer, own_precision, reduced, solve
from unmerge.certificate.unrounded import settled
from unmerge.vectors import Gram, TaskVector, is_large

Matrix = NDArray[np.float64]
Watch = Callable[[Iterable[str]], Iterable[str]]

#: the rank of the unknown is this quantile over tensors, since an unknown component need not change all of them
_QUANTILE = 0.75
#: where rounding to the grid has more than this share of the target's squared norm, coefficients shrink with the rounded changes, and the
#: unknown is projected off the target as it was before. Seen at shares of .27 / .08 / .02: 9% to 13% / 1% / .2% too small, and .5% / .3% / .1%
#: off from the target before it was rounded. Answers do not change from .005 to .02
_COARSE = 0.01
#: weights of the tensors that are looked at before they were rounded, evenly spread; of large models that is a part
_LOOKED = 200_000_000
#: the share of what this changes that may still be missing. Seen: .02 to .15, the latter where a few rows hold most of what is unknown
_MISSING = 0.2
#: where atoms were rounded first, so was what is unknown, to whole steps that no normal law describes: every coefficient may then be off by this
#: share of the largest relative change. Seen: by .35 of it
_STEPWISE = 0.5
#: where less than this share of an atom is left after projecting, what is unknown covers it: least squares, and the leak in the interval
_KEPT = 0.01
#: an atom that varies acts in a tensor where it shows at least this share of the containment that theory expects; elsewhere its coefficient starts
#: from 0, so that no rank of what is left is taken for its own. Present atoms show about 1, absent ones below .5
SHOWN_IN_TENSOR = 0.7
#: a component that contributes less than this share of the target's squared norm is none. Detection limits lie a hundred times higher
_LEAST_SHARE = 1e-6
#: the estimators that unknown components do not move: intervals left by rounding, and projecting off what is unknown
INTERVALS, OBLIQUE = "intervals", "oblique"


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

        All of them where nothing unknown was projected off and none varies: then a coefficient near 0 is what is left of noise.
        """
        return [place for place in range(len(self.coefficients)) if self._is_clear(place)]

    def _is_clear(self, place: int) -> bool:
        if self.share[place] < _LEAST_SHARE:
            return False
        if parts := self.profiles[place]:
            return any(_excludes_zero(part.interval) for part in parts)
        return self.estimator != OBLIQUE or _excludes_zero(self.interval[place])


def measure(
    atoms: Sequence[TaskVector],
    target: TaskVector,
    products: Gram,
    seen: Sequence[TensorEvidence],
    chosen: Sequence[int],
    dense: NDArray[np.bool_],
    sample: Sample | None,
    watch: Watch = iter,
) -> Measured:
    """Measure the atoms that are in a target.

    Args:
        atoms: the dictionary.
        target: the target.
        products: inner products of all atoms and the target, over all weights.
        seen: what the tensors that are not blind say.
        chosen: the k atoms that are present.
        dense: (k,) which of them have no low rank.
        sample: weights of the target with what the chosen atoms would have changed in them; None where nothing was rounded.
        watch: wraps loops over tensors, for a progress bar.
    """
    systems = products.gram[:, chosen][:, :, chosen], products.correlation[:, chosen]
    squares = solve(systems[0].sum(0), systems[1].sum(0))
    rounded = rounding_fit(sample, squares) if sample else None
    if rounded and rounded.explains:
        k = len(chosen)
        return Measured(
            coefficients=rounded.coefficients,
            interval=rounded.interval,
            tensors=products.tensors,
            by_tensor=_own(systems),
            estimator=INTERVALS,
            unknown_rank=0,
            unknown_components=0,
            trimmed=False,
            rounding_share=rounded.rounding_share,
            profiles=((),) * k,
            likeness=(likeness_by_weights(rounded.identical, rounded.rounding_share),) * k,
            share=np.ones(k),
            rounded=rounded,
        )
    trimmed = bool(sample and sample.is_trimmed(squares))
    coarse = bool(sample and not trimmed and sample.coarseness > _COARSE)
    figures = sample.figures if sample else FIGURES
    # where others than these coefficients are taken, only the rank of what is left is wanted: of large tensors one look is enough
    once = (trimmed or coarse) and any(is_large(item.shape) for item in seen)
    closer, varying = _refined(atoms, target, products, seen, chosen, squares, watch, 1 if once else ROUNDS, bool(dense.any()))
    names, left = tuple(item.tensor for item in seen), (closer.gram, closer.correlation)
    told = closer
    covered = closer.kept < _KEPT
    if covered.any() and not once:
        # what is left covers these: nothing of them was subtracted. Whether they are in there shows when least squares' share of them is
        field = np.where(covered, squares, np.nan_to_num(closer.coefficients))
        known = [atoms[atom] for atom in chosen]
        told = refined(known, target, _looked(seen, chosen, field, products), field, watch, 1, varying)
    rank, count = _quantile(told.ranks), _quantile(np.rint(told.ranks / [item.usual_rank for item in seen]))
    leaked = leak(products, chosen) / np.sqrt(np.einsum("mii->i", products.gram)[chosen])
    doubt, looked_at, before = np.zeros(len(chosen)), seen, None
    if sample and rounded and coarse and rank and not varying.any():
        known, some = [atoms[atom] for atom in chosen], _some(_looked(seen, chosen, closer.coefficients, products), seen)

        def project(vector: TaskVector, guess: Matrix) -> tuple[Matrix, Refined]:
            found = refined(known, vector, some, guess, watch, rounds=1)
            return found.coefficients[0], found

        if before := settled(known, target, sample, rounded.coefficients, project):
            raw, (closer, order) = closer.coefficients[0], before
            moved, told = np.abs(closer.coefficients[0] - raw), closer
            doubt = _MISSING * moved
            if order.atoms_first:
                doubt += _STEPWISE * np.divide(moved, np.abs(raw), out=np.zeros_like(raw), where=raw != 0).max() * np.abs(closer.coefficients[0])
            names, coarse = tuple(item.tensor for item in some), False
            looked_at, left = [item for item in seen if item.tensor in names], (closer.gram, closer.correlation)
    tensors, shown = products.tensors, systems
    if rounded and coarse:
        coefficients, estimator = rounded.coefficients, INTERVALS
        interval = _widened(rounded.interval, leaked)
    elif rank and not trimmed and bool((closer.kept >= _KEPT).all()):
        coefficients, estimator, tensors, shown = _mean(closer.coefficients, left[0]), OBLIQUE, names, left
        interval = _jackknifed(left, coefficients, varying)
        interval = _widened(interval, np.abs(squares - coefficients) * _hidden(seen, chosen, coefficients) + doubt)
    else:
        estimator = "least squares"
        coefficients = np.where(varying, _mean(closer.coefficients, _grams(products, names, chosen)), squares)
        if varying.any():
            parts = reduced(*systems, varying)
            coefficients[~varying] = solve(parts[0].sum(0), parts[1].sum(0))
        interval = _jackknifed(systems, coefficients, varying)
        if rank and not trimmed:
            interval = _widened(interval, leaked)
    precision = _precision(closer.gram)
    noisy, hidden = any(item.noise for item in seen), _hidden(seen, chosen, coefficients)
    relative_leak = np.abs(np.divide(squares - coefficients, coefficients, out=np.zeros_like(squares), where=coefficients != 0)) * hidden
    profiles = tuple(
        profile(closer.coefficients[:, place], precision[:, place], names, noisy, float(relative_leak[place]), figures) if varying[place] else ()
        for place in range(len(chosen))
    )
    sizes = told.taken**2 * np.einsum("mii->mi", _grams(products, names, chosen))
    directions = np.array([item.directions(chosen, row) for item, row in zip(looked_at, told.taken, strict=True)], dtype=np.int64)
    remaining = told.remains[:, :, int(leaves_more(told.excess, directions))]
    return Measured(
        coefficients=coefficients,
        interval=_widened(interval, figures * np.abs(coefficients)),
        tensors=tensors,
        by_tensor=_own(shown),
        estimator=estimator,
        unknown_rank=rank if seen else None,
        unknown_components=max(count, min(rank, 1)) if seen and not trimmed else None,
        trimmed=trimmed,
        rounding_share=sample.rounding_share(TOGETHER, coefficients) if sample else None,
        profiles=profiles,
        likeness=tuple(likeness(remaining[:, place], sizes[:, place], not dense[place], bool(covered[place])) for place in range(len(chosen))),
        share=sizes.sum(0) / float(products.norm_squared.sum()),
        before_rounding=before is not None,
    )


def _grams(products: Gram, tensors: Sequence[str], chosen: Sequence[int]) -> Matrix:
    """(m, k, k) inner products of some atoms in some tensors."""
    rows = [products.tensors.index(tensor) for tensor in tensors]
    return products.gram[rows][:, chosen][:, :, chosen]


def _refined(
    atoms: Sequence[TaskVector],
    target: TaskVector,
    products: Gram,
    seen: Sequence[TensorEvidence],
    chosen: Sequence[int],
    squares: Matrix,
    watch: Watch,
    rounds: int,
    dense: bool,
) -> tuple[Refined, NDArray[np.bool_]]:
    """A closer look at what the components leave, and (k,) which of them vary from part to part of the model."""
    known, noisy = [atoms[atom] for atom in chosen], any(item.noise for item in seen)
    names = [item.tensor for item in seen]
    field, varying = np.tile(squares, (len(seen), 1)), np.zeros(len(chosen), dtype=bool)
    low = [low_rank(atoms, chosen, name) for name in names]
    # what atoms without a low rank leave cannot be told within the target's signal subspaces alone: then least squares is the start
    if (told := [place for place, deltas in enumerate(low) if deltas]) and not dense:
        first = oblique([seen[place] for place in told], chosen, [Directions.of(low[place], DIRECTIONS) for place in told], squares)
        varying = _varying(first.by_tensor, first.precision, [names[place] for place in told], noisy)
        field[:] = first.together
        shown = np.array([seen[place].shown(chosen, squares) for place in told]) >= SHOWN_IN_TENSOR
        field[told] = np.where(varying & shown, np.nan_to_num(first.by_tensor), np.where(varying, 0.0, field[told]))
    closer = refined(known, target, _looked(seen, chosen, field, products), field, watch, rounds, varying)
    own = _own((closer.gram, closer.correlation))
    also = _varying(own, _precision(closer.gram), names, noisy) & ~varying
    if also.any():
        varying = varying | also
        field = np.where(varying, np.nan_to_num(own), closer.coefficients)
        closer = refined(known, target, _looked(seen, chosen, field, products), field, watch, rounds, varying)
    return closer, varying


def _precision(gram: Matrix) -> Matrix:
    """(m, k) ``systems.own_precision`` of every tensor."""
    return np.array([own_precision(own) for own in gram]).reshape(gram.shape[:2])


def _varying(own: Matrix, precision: Matrix, tensors: Sequence[str], noisy: bool) -> NDArray[np.bool_]:
    return np.array([varies(own[:, place], precision[:, place], tensors, noisy) for place in range(own.shape[1])], dtype=bool)


def _mean(coefficients: Matrix, gram: Matrix) -> Matrix:
    """(k,) coefficients over tensors, weighed by what each tensor has of the atom."""
    sizes = np.einsum("mii->mi", gram)
    whole = sizes.sum(0)
    return np.asarray(np.divide((np.nan_to_num(coefficients) * sizes).sum(0), whole, out=np.zeros(len(whole)), where=whole > 0))


def _jackknifed(systems: tuple[Matrix, Matrix], coefficients: Matrix, varying: NDArray[np.bool_]) -> Matrix:
    """(k, 2) intervals by the jackknife over tensors; of an atom that varies, of its mean."""
    interval = np.stack([coefficients, coefficients], 1)
    interval[~varying] = jackknife_interval(*reduced(*systems, varying), coefficients[~varying])
    for place in np.flatnonzero(varying):
        alone = systems[0][:, [place]][:, :, [place]]
        interval[place] = jackknife_interval(alone, alone[:, :, 0] * np.nan_to_num(_own(systems))[:, [place]], coefficients[[place]])[0]
    return interval


def _excludes_zero(interval: Sequence[float] | Matrix) -> bool:
    return bool(interval[0] > 0 or interval[1] < 0)


def _looked(seen: Sequence[TensorEvidence], chosen: Sequence[int], coefficients: Matrix, products: Gram) -> list[Looked]:
    """What ``refined`` needs to know of each tensor."""
    squares = dict(zip(products.tensors, products.norm_squared.tolist(), strict=True))
    return [
        Looked(item.tensor, item.noise, item.rank_left(chosen, row), len(item.signal_values), item.least, squares[item.tensor])
        for item, row in zip(seen, coefficients, strict=True)
    ]


def _some(looked: Sequence[Looked], seen: Sequence[TensorEvidence]) -> list[Looked]:
    """As many tensors as may be looked at, evenly spread."""
    every = -(-sum(math.prod(item.shape) for item in seen) // _LOOKED)
    return list(looked[:: max(every, 1)])


def _own(systems: tuple[Matrix, Matrix]) -> Matrix:
    """(m, k) each tensor's own answer."""
    gram, correlation = systems
    return np.array([own_answer(*system) for system in zip(gram, correlation, strict=True)]).reshape(correlation.shape)


def _quantile(values: NDArray[Any]) -> int:
    return int(np.quantile(values, _QUANTILE, method="lower")) if len(values) else 0


def _widened(interval: Matrix, by: Matrix) -> Matrix:
    return interval + np.stack([-by, by], 1)


def _hidden(seen: Sequence[TensorEvidence], chosen: Sequence[int], coefficients: Matrix) -> float:
    """The share of the known components' energy that lies below the target's noise.

    As much of the unknown ones will lie there, where it is not projected off: it leaks as it does in least squares.
    """
    contained = energy = 0.0
    for item in seen:
        for atom, coefficient in zip(chosen, coefficients, strict=True):
            own = item.owner == atom
            square = (coefficient * item.values[own]) ** 2
            contained, energy = contained + float(square @ item.containment[own]), energy + float(square.sum())
    return 1 - contained / energy if energy else 0.0
