"""Non-negative least squares (Lawson and Hanson, Solving Least Squares Problems, 1974, chapter 23).

    minimise ||t - V c||^2  subject to  c >= 0

The active-set method, on the n x n root of the problem. The minimum is global; it is unique where G has full rank. No penalty.
Named: contributions of at least 0.1 ||t||: least squares spreads what it cannot explain over every atom a little.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import nnls as scipy_nnls

from unmerge.solvers.optimality import nonnegative, verdict, violation
from unmerge.solvers.problem import Problem, Solution, Vector
from unmerge.solvers.root import root


def nnls(problem: Problem) -> Solution:
    """Solve with ``scipy.optimize.nnls`` on the n x n root of the problem."""
    shares = nonnegative_shares(problem)
    found = violation(shares, problem.share_gradient(shares), nonnegative)
    return problem.answer(
        shares,
        violation=found,
        steps=int(np.count_nonzero(shares)),
        stopped=verdict(found),
    )


def nonnegative_shares(problem: Problem) -> Vector:
    """(n,) shares of the best non-negative combination."""
    matrix, right = root(problem)
    if not len(matrix):
        return np.zeros(problem.size)
    # atoms and target have length 1: scipy's tolerance is absolute, small atoms and small targets would get zeros
    shares, _ = scipy_nnls(matrix, right, maxiter=30 * problem.size + 30)
    return np.asarray(shares)
