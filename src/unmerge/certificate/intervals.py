"""Intervals of coefficients: the spread over tensors, and what something unknown may have moved them by."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from unmerge.certificate.candidates import Candidates
from unmerge.certificate.evidence import TensorEvidence
from unmerge.certificate.refined import Refined
from unmerge.certificate.systems import jackknife_interval, own_answers, reduced

Matrix = NDArray[np.float64]

#: what training leaves has no sharp edge: so many of its singular values are near that of the noise in the median tensor (6 to 16 after full
#: fine-tuning at 1e-5 to 3e-4, 1 or 2 of low-rank unknowns), and as many lie below it. Then the noise has directions of its own, along atoms too:
#: .010 of its norm in the root mean square, whatever the rate of training, and .025 at most. The interval is widened by twice the former
_CROWDED, _ALONG = 4, 0.02


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
    return np.abs(some.squares - coefficients) * _hidden(some, coefficients) + _below_the_edge(some, closer, looked_at)


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
    if not len(closer.near) or float(np.median(closer.near)) < _CROWDED:
        return np.zeros(len(some.chosen))
    noise = math.sqrt(sum(item.noise**2 * math.prod(item.shape) for item in looked_at))
    return np.asarray(_ALONG * noise / some.lengths)
