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
    size = np.diag(gram)
    told = size > 1e-9 * size.max() if len(size) and size.max() > 0 else np.zeros(len(size), dtype=bool)
    result = np.full(len(size), np.nan)
    result[told] = solve(gram[np.ix_(told, told)], correlation[told])
    return result


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
