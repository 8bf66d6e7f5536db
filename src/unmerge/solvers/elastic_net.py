"""Elastic net (Zou and Hastie, J. R. Statist. Soc. B 2005), without their rescaling of the answer.

    minimise 1/2 ||t - V c||^2 + l1 ||t|| sum_i ||v_i|| |c_i| + l2/2 sum_i ||v_i||^2 c_i^2,   l1 = l2 = 0.1

Penalties in units of atoms and target, as in ``lasso`` and ``ridge``: l1 keeps out what contributes less than a tenth, l2 makes atoms
that resemble each other enter together; equal parts (a ratio of one half, as is usual). Strictly convex, so the minimum is
unique even where atoms coincide. With l2 = 0 it is the lasso, with l1 = 0 ridge. Named: contributions
of at least 0.1 ||t||, after the shrinking.
"""

from __future__ import annotations

from unmerge.solvers.coordinate_descent import coordinate_descent
from unmerge.solvers.problem import NAMED_SHARE, Problem, Solution


def elastic_net(problem: Problem, l1: float = NAMED_SHARE, l2: float = NAMED_SHARE) -> Solution:
    """Solve by coordinate descent. Equivalent: ``sklearn.linear_model.ElasticNet`` on unit atoms."""
    return coordinate_descent(problem, l1, l2)
