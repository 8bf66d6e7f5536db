"""Intervals of coefficients: the spread over tensors, and what something unknown may have moved them by."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from unmerge.certificate.candidates import Candidates
from unmerge.certificate.duplicates import usual_cosine
from unmerge.certificate.evidence import TensorEvidence
from unmerge.certificate.refined import Refined
from unmerge.certificate.systems import jackknife_interval, own_answers, reduced

Matrix = NDArray[np.float64]

#: what training leaves has no sharp edge: so many of its singular values are near that of the noise in the median tensor (6 to 16 after full
#: fine-tuning at 1e-5 to 3e-4, 1 or 2 of low-rank unknowns), and as many lie below it. Then the noise has directions of its own, along atoms too:
#: .010 of its norm in the root mean square, whatever the rate of training, and .025 at most. With the spread over tensors this share of the norm
#: holds nineteen in twenty; of an atom without a low rank it is what such atoms have in common
_CROWDED, _ALONG = 4, 0.009
#: so many absent atoms must tell how far something unknown lies along adapters. So many times their root mean square is what an atom may share
_TELLING, _TIMES = 3, 1.5


def spread(systems: tuple[Matrix, Matrix], coefficients: Matrix, varying: NDArray[np.bool_]) -> Matrix:
    """(k, 2) intervals by the jackknife over tensors; of an atom that varies, of its mean.

    Args:
        systems: (m, k, k) and (m, k) normal equations of every tensor.
        coefficients: (k,) their answer.
        varying: (k,) which atoms have a coefficient in each tensor.
    """
    interval = np.stack([coefficients, coefficients], 1)
    interval[~varying] = jackknife_interval(*reduced(*systems, varying), coefficients[~varying])
    for place in np.flatnonzero(varying):
        alone = systems[0][:, [place]][:, :, [place]]
        own = np.nan_to_num(own_answers(*systems))[:, [place]]
        interval[place] = jackknife_interval(alone, alone[:, :, 0] * own, coefficients[[place]])[0]
    return interval


def widened(interval: Matrix, by: Matrix) -> Matrix:
    """(k, 2) intervals, each longer by (k,) on either side."""
    return interval + np.stack([-by, by], 1)


def excludes_zero(interval: Sequence[float] | Matrix) -> bool:
    """Whether an interval lies above or below 0."""
    return bool(interval[0] > 0 or interval[1] < 0)


def moved(some: Candidates, closer: Refined, coefficients: Matrix, looked_at: Sequence[TensorEvidence]) -> Matrix:
    """(k,) how far something unknown that is not projected off may have moved each coefficient.

    Args:
        some: the components.
        closer: what they leave.
        coefficients: (k,) of them, with the unknown projected off.
        looked_at: the tensors of ``closer``.
    """
    hidden = _hidden(some, coefficients)
    unprojected = np.maximum(np.abs(some.squares - coefficients), hidden * along_atoms(some, coefficients))
    return hidden * unprojected + _below_the_edge(some, closer, looked_at)


def is_crowded(closer: Refined) -> bool:
    """Whether what is left has no sharp edge, as what training leaves: many of its singular values are near that of the noise."""
    return bool(len(closer.near)) and float(np.median(closer.near)) >= _CROWDED


def along_atoms(some: Candidates, coefficients: Matrix) -> Matrix:
    """(k,) how far something unknown may have moved each coefficient if nothing of it is projected off.

    Absent atoms have no part in the target, so what they have in common with what is left is chance: that of the noise, by as much as its
    variance says, and beyond it that of something unknown, which has as much in common with the components. 0 where too few atoms are absent.

    Args:
        some: the components.
        coefficients: (k,) of them.
    """
    absent = some.strangers
    if len(absent) < _TELLING:
        return np.zeros(len(some.chosen))
    gram, correlation = some.products.gram[some.rows], some.products.correlation[some.rows]
    squares = np.einsum("mii->mi", gram)
    lengths = np.sqrt(squares.sum(0))
    shared = (correlation - gram[:, :, some.chosen] @ coefficients).sum(0)[absent] / lengths[absent]
    by_noise = (np.array([item.noise**2 for item in some.seen]) @ squares[:, absent]) / lengths[absent] ** 2
    beyond = max(float((shared**2 - by_noise).mean()), 0.0)
    return np.asarray(_TIMES * math.sqrt(beyond) / some.lengths)


def _hidden(some: Candidates, coefficients: Matrix) -> float:
    """The share of the known components' energy that lies below the target's noise.

    As much of the unknown ones will lie there, where it is not projected off: it leaks as it does in least squares.
    """
    contained = energy = 0.0
    for item in some.seen:
        for atom, coefficient in zip(some.chosen, coefficients, strict=True):
            own = item.owner == atom
            square = (coefficient * item.values[own]) ** 2
            contained, energy = contained + float(square @ item.containment[own]), energy + float(square.sum())
    return 1 - contained / energy if energy else 0.0


def _below_the_edge(some: Candidates, closer: Refined, looked_at: Sequence[TensorEvidence]) -> Matrix:
    """(k,) how far each coefficient may be off by what training left below the edge of the noise; 0 where what is left ends above it."""
    if not is_crowded(closer):
        return np.zeros(len(some.chosen))
    noise = math.sqrt(sum(item.noise**2 * math.prod(item.shape) for item in looked_at))
    along = np.full(len(some.chosen), _ALONG)
    if some.dense.any():
        along[some.dense] = usual_cosine(some.products.gram.sum(0), some.without_rank)[list(some.chosen)][some.dense]
    return np.asarray(along * noise / some.lengths)
