"""Non-negative lasso (Tibshirani 1996; Efron et al., Least Angle Regression, 2004, section 3.4).

    minimise 1/2 ||t - V c||^2 + lambda ||t|| sum_i ||v_i|| c_i   subject to  c >= 0,   lambda = 0.1

The lasso for what a merge can be: it adds. The penalty, its rule and the guarantees are those of ``lasso``; with lambda = 0 it is
``nnls``. Named: contributions of at least 0.1 ||t||, after the shrinking.
"""

from __future__ import annotations

from unmerge.solvers.coordinate_descent import coordinate_descent
from unmerge.solvers.problem import NAMED_SHARE, Problem, Solution


def nonnegative_lasso(problem: Problem, penalty: float = NAMED_SHARE) -> Solution:
    """Solve by coordinate descent. Equivalent: ``sklearn.linear_model.Lasso(positive=True)`` on unit atoms."""
    return coordinate_descent(problem, penalty, positive=True)
