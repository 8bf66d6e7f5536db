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
from unmerge.certificate.oblique import oblique
from unmerge.certificate.refined import ROUNDS, Looked, Refined, refined
from unmerge.certificate.rounding import FIGURES, Sample
from unmerge.certificate.rounding_fit import RoundingFit, rounding_fit
from unmerge.certificate.rounding_order import TOGETHER
from unmerge.certificate.systems import jackknife_interval, own_answer, solve
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
#: where less than this share of an atom is left after projecting, what is unknown covers it: least squares, and the leak in the interval
_KEPT = 0.01
#: the estimators that unknown components do not move: intervals left by rounding, and projecting off what is unknown
INTERVALS, OBLIQUE = "intervals", "oblique"


@dataclass(frozen=True)
class Measured:
    """Coefficients of k components, and what they leave.

    Attributes:
        coefficients: (k,).
        interval: (k, 2) at the level ``systems.CONFIDENCE``.
        tensors: (m,) names.
        by_tensor: (m, k) what each tensor says by itself; NaN where it says nothing.
        estimator: ``least squares``, ``intervals`` or ``oblique``.
        unknown_rank: rank above the noise of what is left; None where no tensor can tell.
        unknown_components: how many atoms of the dictionary's usual rank that is.
        trimmed: whether small changes were trimmed, as ties does: then no one coefficient acted, and what is left has a rank of its own.
        rounding_share: what rounding alone would leave of a target made of these components; None without a grid.
        rounded: how the weights were rounded, where that and the components explain them; else None.
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
    rounded: RoundingFit | None = None

    @property
    def clear(self) -> list[int]:
        """Places of the components whose coefficient is known to be above 0; all of them unless the unknown was projected off."""
        if self.estimator != OBLIQUE:
            return list(range(len(self.coefficients)))
        return np.flatnonzero(self.interval[:, 0] > 0).tolist()


def measure(
    atoms: Sequence[TaskVector],
    target: TaskVector,
    products: Gram,
    seen: Sequence[TensorEvidence],
    chosen: Sequence[int],
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
        sample: weights of the target with what the chosen atoms would have changed in them; None where nothing was rounded.
        watch: wraps loops over tensors, for a progress bar.
    """
    systems = products.gram[:, chosen][:, :, chosen], products.correlation[:, chosen]
    squares = solve(systems[0].sum(0), systems[1].sum(0))
    rounded = rounding_fit(sample, squares) if sample else None
    if rounded and rounded.explains:
        return Measured(
            rounded.coefficients, rounded.interval, products.tensors, _own(systems), INTERVALS, 0, 0, False, rounded.rounding_share, rounded
        )
    own = [Directions.of(low_rank(atoms, chosen, item.tensor), DIRECTIONS) for item in seen] if len(chosen) else []
    first = oblique(seen, chosen, own, squares) if own else squares
    names = tuple(item.tensor for item in seen)
    trimmed = bool(sample and sample.is_trimmed(squares))
    coarse = bool(sample and not trimmed and sample.coarseness > _COARSE)
    looked = _looked(seen, chosen, first, products)
    # where others than these coefficients are taken, only the rank of what is left is wanted: of large tensors one look is enough
    once = (trimmed or coarse) and any(is_large(item.shape) for item in seen)
    closer = refined([atoms[atom] for atom in chosen], target, looked, first, watch, rounds=1 if once else ROUNDS)
    rank, count = _quantile(closer.ranks), _quantile(np.rint(closer.ranks / [item.usual_rank for item in seen]))
    leaked = leak(products, chosen) / np.sqrt(np.einsum("mii->i", products.gram)[chosen])
    doubt = np.zeros(len(chosen))
    if sample and rounded and coarse and rank:
        known, some = [atoms[atom] for atom in chosen], _some(looked, seen)

        def project(vector: TaskVector, guess: Matrix) -> tuple[Matrix, Refined]:
            found = refined(known, vector, some, guess, watch, rounds=1)
            return found.coefficients, found

        before = settled(known, target, sample, rounded.coefficients, project)
        if before:
            doubt = _MISSING * np.abs(before.coefficients - closer.coefficients)
            closer, names, coarse = before, tuple(item.tensor for item in some), False
    if rounded and coarse:
        coefficients, estimator, tensors = rounded.coefficients, INTERVALS, products.tensors
        interval = _widened(rounded.interval, leaked)
    elif rank and not trimmed and bool((closer.kept >= _KEPT).all()):
        coefficients, estimator, tensors, systems = closer.coefficients, OBLIQUE, names, (closer.gram, closer.correlation)
        interval = jackknife_interval(*systems, coefficients)
        interval = _widened(interval, np.abs(squares - coefficients) * _hidden(seen, chosen, coefficients) + doubt)
    else:
        coefficients, estimator, tensors = squares, "least squares", products.tensors
        interval = jackknife_interval(*systems, coefficients)
        if rank and not trimmed:
            interval = _widened(interval, leaked)
    return Measured(
        coefficients=coefficients,
        interval=_widened(interval, (sample.figures if sample else FIGURES) * np.abs(coefficients)),
        tensors=tensors,
        by_tensor=_own(systems),
        estimator=estimator,
        unknown_rank=rank if seen else None,
        unknown_components=max(count, min(rank, 1)) if seen and not trimmed else None,
        trimmed=trimmed,
        rounding_share=sample.rounding_share(TOGETHER, coefficients) if sample else None,
    )


def _looked(seen: Sequence[TensorEvidence], chosen: Sequence[int], coefficients: Matrix, products: Gram) -> list[Looked]:
    """What ``refined`` needs to know of each tensor."""
    squares = dict(zip(products.tensors, products.norm_squared.tolist(), strict=True))
    return [
        Looked(item.tensor, item.noise, item.rank_left(chosen, coefficients), len(item.signal_values), item.least, squares[item.tensor])
        for item in seen
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
