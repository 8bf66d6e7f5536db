"""Exact best subset (Furnival, All possible regressions with less computation, Technometrics 1971), up to 20 atoms.

    minimise over all subsets S    min_c ||t - V_S c||^2 / ||t||^2  +  GAIN |S|

The l0-penalised problem that OMP, iterative hard thresholding and CoSaMP approximate; here its global minimum. An atom that is
in must lower the squared error by GAIN of the target's squared norm over the best that can be done without it.
All 2^n subsets are visited level by level: level k decides on atom k, and every subset carries the part of the bordered Gram
matrix that is still to be decided. Taking an atom in is one Schur complement, leaving it out drops a row; 2^n n^2 / 2^k numbers at
level k, about 6 x 2^n in all, so that 20 atoms take a second. An atom that depends on those already in brings nothing and is
refused, so singular problems are no trouble. Named: contributions of at least 0.1 ||t||, which is every atom that is in and adds,
since an atom that lowers the error by GAIN contributes sqrt(GAIN) or more.
"""

from __future__ import annotations

import numpy as np

from unmerge.core.errors import BadInput
from unmerge.solvers.problem import GAIN, Problem, Solution, Vector
from unmerge.solvers.support import normal_violation, refit

#: atoms, at most
LARGEST = 20
#: a squared length up to this, of an atom less its projection on those already in, is rounding
_DEPENDENT = 1e-10


def best_subset(problem: Problem, gain: float = GAIN) -> Solution:
    """Solve by visiting every subset.

    Raises:
        BadInput: more than 20 atoms.
    """
    if problem.size > LARGEST:
        raise BadInput(
            expected=f"at most {LARGEST} atoms, for best_subset tries all 2^n subsets",
            found=f"{problem.size}",
            where="the dictionary",
            hint="choose omp, cosamp or iht, which approximate it, or give a smaller dictionary",
        )
    costs = subset_errors(problem) + gain * np.bitwise_count(np.arange(2**problem.size))
    best = int(np.argmin(costs))
    support = [atom for atom in range(problem.size) if best >> atom & 1]
    shares = refit(problem, support)
    return problem.answer(
        shares,
        violation=normal_violation(problem, shares, support),
        steps=len(costs),
        stopped=f"all subsets were tried; this one has the least squared error plus {gain:g} for each atom",
    )


def subset_errors(problem: Problem) -> Vector:
    """(2^n,) the least ||t - V_S c||^2 / ||t||^2 for every subset; bit i of the place says whether atom i is in."""
    n = problem.size
    # bordered by the target: the last row and column are products with it, the last entry the squared residual
    left = np.empty((1, n + 1, n + 1))
    left[0, :n, :n] = problem.cosines
    left[0, :n, n] = left[0, n, :n] = problem.target_cosines
    left[0, n, n] = float(problem.norm_squared > 0)
    for _ in range(n):
        pivots, across, rest = left[:, 0, 0], left[:, 0, 1:], left[:, 1:, 1:]
        inverse = np.divide(1.0, pivots, out=np.zeros_like(pivots), where=pivots > _DEPENDENT)
        taken = rest - inverse[:, None, None] * across[:, :, None] * across[:, None, :]
        left = np.concatenate([rest, taken])  # the new atom is the highest bit so far
    return np.asarray(left[:, 0, 0])
