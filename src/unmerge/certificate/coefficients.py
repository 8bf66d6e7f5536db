"""The coefficients of present atoms, found in the way that what is left allows.

least squares   nothing unknown is left: what remains is noise (a float32 merge, dare's masks). Also where small changes were trimmed
                (ties): no one coefficient acted, and what is left has a rank without being unknown.
intervals       nothing unknown is left, and rounding explains what remains: the intervals that it leaves are sharper by far.
oblique         something unknown is left: it is projected off.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unmerge.certificate.directions import Directions
from unmerge.certificate.evidence import DIRECTIONS, TensorEvidence, low_rank
from unmerge.certificate.oblique import oblique
from unmerge.certificate.refined import refined
from unmerge.certificate.rounding import FIGURES, Grid, Sample
from unmerge.certificate.systems import jackknife_interval, own_answer, solve
from unmerge.vectors import Gram, TaskVector

Matrix = NDArray[np.float64]
Watch = Callable[[Iterable[str]], Iterable[str]]

#: the rank of the unknown is this quantile over tensors, since an unknown component need not change all of them
_QUANTILE = 0.75
#: rounding explains what is left where squared distances to the intervals are at most this many times rounding's own variance
_ROUNDED = 1.0
#: rounding explains every weight where it is at most this: then nothing was rounded on the way either
_EXACT = 1e-6


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


def measure(
    atoms: Sequence[TaskVector],
    target: TaskVector,
    products: Gram,
    seen: Sequence[TensorEvidence],
    chosen: Sequence[int],
    grid: Grid | None,
    watch: Watch = iter,
) -> Measured:
    """Measure the atoms that are in a target.

    Args:
        atoms: the dictionary.
        target: the target.
        products: inner products of all atoms and the target, over all weights.
        seen: what the tensors that are not blind say.
        chosen: the k atoms that are present.
        grid: what the target was rounded to; None for an adapter.
        watch: wraps loops over tensors, for a progress bar.
    """
    gram, correlation = products.gram[:, chosen][:, :, chosen], products.correlation[:, chosen]
    squares = solve(gram.sum(0), correlation.sum(0))
    own = [Directions.of(low_rank(atoms, chosen, item.tensor), DIRECTIONS) for item in seen] if len(chosen) else []
    first = oblique(seen, chosen, own, squares) if own else squares
    names, components = tuple(item.tensor for item in seen), [atoms[atom] for atom in chosen]
    closer = refined(components, target, names, [item.noise for item in seen], first, watch)
    rank, count = _quantile(closer.ranks), _quantile(np.rint(closer.ranks / [item.usual_rank for item in seen]))
    sample = Sample.of(components, target, grid, watch) if grid and components else None
    figures = sample.figures if sample else FIGURES
    trimmed = bool(sample and sample.is_trimmed(squares))
    if rank and not trimmed:
        coefficients, estimator, systems, tensors = closer.coefficients, "oblique", (closer.gram, closer.correlation), names
    else:
        coefficients, estimator, systems, tensors = squares, "least squares", (gram, correlation), products.tensors
    interval = jackknife_interval(*systems, coefficients)
    if estimator == "oblique":
        interval = _widened(interval, np.abs(squares - coefficients) * _hidden(seen, chosen, coefficients))
    elif sample and not trimmed and (misfit := sample.misfit(fitted := sample.fit(coefficients))) <= _ROUNDED:
        coefficients, estimator, interval = fitted, "intervals", sample.interval(fitted)
        figures = figures if misfit > _EXACT else FIGURES
    return Measured(
        coefficients=coefficients,
        interval=_widened(interval, figures * np.abs(coefficients)),
        tensors=tensors,
        by_tensor=np.array([own_answer(*system) for system in zip(*systems, strict=True)]).reshape(len(tensors), -1),
        estimator=estimator,
        unknown_rank=rank if seen else None,
        unknown_components=max(count, min(rank, 1)) if seen and not trimmed else None,
        trimmed=trimmed,
        rounding_share=sample.rounding_share(coefficients) if sample else None,
    )


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
