"""Ridge regression (Hoerl and Kennard, Technometrics 1970).

    minimise 1/2 ||t - V c||^2 + alpha/2 sum_i ||v_i||^2 c_i^2,   alpha = 0.01

Every atom is penalised in units of its own length, so the solution does not depend on units. alpha is a hundredth of an atom's
squared length: one that stands alone is shrunk by 1%, and the condition number of n atoms is at most 1 + 100 n, so that
coinciding atoms share their coefficient evenly instead of at random. Unique and closed-form, always.
Named: contributions of at least 0.1 ||t||.
"""

from __future__ import annotations

import numpy as np

from unmerge.solvers.optimality import free, violation
from unmerge.solvers.problem import Problem, Solution

#: the penalty, in units of an atom's squared length
ALPHA = 0.01


def ridge(problem: Problem, alpha: float = ALPHA) -> Solution:
    """Solve (K + alpha I) x = k for unit atoms. Equivalent: ``sklearn.linear_model.Ridge(alpha, fit_intercept=False)`` on unit atoms."""
    shares = np.asarray(np.linalg.solve(problem.cosines + alpha * np.eye(problem.size), problem.target_cosines), dtype=np.float64)
    return problem.answer(
        shares,
        violation=violation(shares, problem.share_gradient(shares) + alpha * shares, free),
        steps=1,
        stopped="closed form",
    )
