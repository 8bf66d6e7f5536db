"""Lasso (Tibshirani, J. R. Statist. Soc. B 1996).

    minimise 1/2 ||t - V c||^2 + lambda ||t|| sum_i ||v_i|| |c_i|,   lambda = 0.1

The penalty is in units of the atoms and of the target, so the solution does not depend on them. The rule for lambda: an atom
stays out while its product with the residual is less than a tenth of the target's length, the same tenth by which other
methods name an atom. It is absolute, not a share of lambda_max: a target that no atom resembles gets none.
The minimum is global; where atoms coincide it is not unique. Coefficients are shrunk by about lambda ||t|| / ||v_i||.
Finds the right atoms where those absent correlate little with those present (the irrepresentable condition, Zhao and Yu, 2006).
Named: contributions of at least 0.1 ||t||, after the shrinking; a lone atom needs 0.2.
"""

from __future__ import annotations

from unmerge.solvers.coordinate_descent import coordinate_descent
from unmerge.solvers.problem import NAMED_SHARE, Problem, Solution


def lasso(problem: Problem, penalty: float = NAMED_SHARE) -> Solution:
    """Solve by coordinate descent. Equivalent: ``sklearn.linear_model.Lasso`` on unit atoms."""
    return coordinate_descent(problem, penalty)
