"""Normal equations, tensor by tensor: their sum's answer, each one's own, and the spread between them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Matrix = NDArray[np.float64]

#: level of the intervals
CONFIDENCE = 0.95


def own_answer(gram: Matrix, correlation: Matrix) -> Matrix:
    """(k,) what one tensor's normal equations say; NaN for atoms that it says nothing about."""
    told = _told(gram)
    result = np.full(len(told), np.nan)
    result[told] = solve(gram[np.ix_(told, told)], correlation[told])
    return result


def own_precision(gram: Matrix) -> Matrix:
    """(k,) one over the variance of each atom's coefficient in one tensor's normal equations over the noise; 0 where it says nothing.

    1 / (G^-1)_kk: what is left of the atom once the others have explained what they can.
    """
    told = _told(gram)
    result = np.zeros(len(told))
    inverse = np.diag(np.linalg.pinv(gram[np.ix_(told, told)], rcond=1e-12, hermitian=True))
    result[told] = np.divide(1.0, inverse, out=np.zeros_like(inverse), where=inverse > 0)
    return result


def own_answers(gram: Matrix, correlation: Matrix) -> Matrix:
    """(m, k) ``own_answer`` of every tensor."""
    return np.array([own_answer(*system) for system in zip(gram, correlation, strict=True)]).reshape(correlation.shape)


def own_precisions(gram: Matrix) -> Matrix:
    """(m, k) ``own_precision`` of every tensor."""
    return np.array([own_precision(own) for own in gram]).reshape(gram.shape[:2])


def _told(gram: Matrix) -> NDArray[np.bool_]:
    """(k,) atoms that one tensor's normal equations say something about."""
    size = np.diag(gram)
    return np.asarray(size > 1e-9 * size.max(initial=0.0)) & (size > 0)


def reduced(gram: Matrix, correlation: Matrix, varying: NDArray[np.bool_]) -> tuple[Matrix, Matrix]:
    """Normal equations of the atoms that have one coefficient in all tensors, those that vary eliminated in each tensor (Schur complement).

    Args:
        gram: (m, k, k), of every tensor.
        correlation: (m, k).
        varying: (k,) which atoms have a coefficient in each tensor.

    Returns:
        (m, f, f) and (m, f) of the f others.
    """
    fixed, free = np.flatnonzero(~varying), np.flatnonzero(varying)
    across = gram[:, fixed][:, :, free]
    inverse = np.linalg.pinv(gram[:, free][:, :, free], rcond=1e-10, hermitian=True)
    through = across @ inverse
    eliminated = np.einsum("mfv,mv->mf", through, correlation[:, free])
    return gram[:, fixed][:, :, fixed] - through @ across.transpose(0, 2, 1), correlation[:, fixed] - eliminated


def solve_partly(gram: Matrix, correlation: Matrix, varying: NDArray[np.bool_]) -> Matrix:
    """(m, k) least squares in which some atoms have one coefficient in all tensors, and the varying ones one in each tensor.

    Args:
        gram: (m, k, k), of every tensor.
        correlation: (m, k).
        varying: (k,) which atoms have a coefficient in each tensor. It is NaN where a tensor says nothing about the atom.
    """
    fixed, free = np.flatnonzero(~varying), np.flatnonzero(varying)
    answer = np.full(correlation.shape, np.nan)
    parts = reduced(gram, correlation, varying)
    answer[:, fixed] = solve(parts[0].sum(0), parts[1].sum(0)) if len(fixed) else 0.0
    for row in range(len(answer) if len(free) else 0):
        left = correlation[row, free] - gram[row][np.ix_(free, fixed)] @ answer[row, fixed]
        answer[row, free] = own_answer(gram[row][np.ix_(free, free)], left)
    return answer


def solve(gram: Matrix, correlation: Matrix) -> Matrix:
    """Least squares in Gram form, by atoms of length 1; the shortest answer where it is singular."""
    length = np.sqrt(np.maximum(np.diag(gram), 0))
    inverse = np.divide(1.0, length, out=np.zeros_like(length), where=length > 0)
    answer: Matrix = np.linalg.lstsq(gram * np.outer(inverse, inverse), correlation * inverse, rcond=1e-12)[0] * inverse
    return answer


def jackknife_interval(gram: Matrix, correlation: Matrix, coefficients: Matrix) -> Matrix:
    """(k, 2) interval around coefficients that solve the sum of m tensors' normal equations: leave one tensor out at a time.

    Args:
        gram: (m, k, k).
        correlation: (m, k).
        coefficients: (k,).
    """
    m, k = correlation.shape
    if m < 2:
        return np.stack([np.full(k, -np.inf), np.full(k, np.inf)], 1)
    whole, right = gram.sum(0), correlation.sum(0)
    without = np.array([solve(whole - gram[row], right - correlation[row]) for row in range(m)])
    error = np.sqrt((m - 1) / m * ((without - without.mean(0)) ** 2).sum(0))
    reach = stats.t.ppf((1 + CONFIDENCE) / 2, m - 1) * error
    return np.stack([coefficients - reach, coefficients + reach], 1)
