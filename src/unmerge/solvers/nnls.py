"""Non-negative least squares (Lawson and Hanson, Solving Least Squares Problems, 1974, chapter 23).

    minimise ||t - V c||^2  subject to  c >= 0

The active-set method, run on the Gram form: G = R^T R turns the problem over all weights into one of n rows,
||t - V c||^2 = ||R^-T b - R c||^2 + constant. R comes from the eigenvectors of G, so that coinciding atoms (a singular G)
are no trouble. The minimum is global; it is unique where G has full rank. Named: contributions of at least 0.1 ||t||, since
least squares spreads what it cannot explain over every atom a little.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import nnls as scipy_nnls

from unmerge.solvers.problem import Matrix, Problem, Solution, Vector, named_by_share

#: a violation of the optimality conditions up to this is rounding
ROUNDING = 1e-7


def nnls(problem: Problem) -> Solution:
    """Solve with ``scipy.optimize.nnls`` on the n x n root of the problem. Violation: of the Karush-Kuhn-Tucker conditions."""
    root, right = _root(problem)
    coefficients = np.zeros(problem.size)
    if len(root):
        # atoms and target of length 1: scipy's tolerance is absolute, small atoms and small targets would get zeros
        scaled, _ = scipy_nnls(root, right, maxiter=30 * problem.size + 30)
        coefficients = scaled * problem.target_scale / problem.scales
    violation = kkt_violation(problem, coefficients)
    return Solution(
        coefficients=coefficients,
        named=named_by_share(problem, coefficients),
        residual_squared=problem.residual_squared(coefficients),
        violation=violation,
        steps=int(np.count_nonzero(coefficients)),
        stopped="the Karush-Kuhn-Tucker conditions hold"
        if violation <= ROUNDING
        else f"rounding: the Karush-Kuhn-Tucker conditions are violated by {violation:.1e}; look for atoms that nearly coincide",
    )


def kkt_violation(problem: Problem, coefficients: Vector) -> float:
    """Largest violation of c >= 0, gradient >= 0, c o gradient = 0: the gradient as a cosine with the target, c as a share of it."""
    gradient = problem.gradient(coefficients) / (problem.scales * problem.target_scale)
    share = coefficients * problem.scales / problem.target_scale
    on, off = coefficients > 0, coefficients <= 0
    violations = [np.abs(gradient[on]), np.maximum(-gradient[off], 0), np.maximum(-share, 0)]
    return float(max(part.max(initial=0.0) for part in violations))


def _root(problem: Problem) -> tuple[Matrix, Vector]:
    """(R, r) with R^T R the cosines between the atoms and R^T r those with the target; no rows without atoms."""
    if not problem.size:
        return np.zeros((0, 0)), np.zeros(0)
    values, vectors = np.linalg.eigh(problem.gram / np.outer(problem.scales, problem.scales))
    keep = values > max(values[-1], 0.0) * problem.size * np.finfo(np.float64).eps
    roots = np.sqrt(values[keep])
    right = (vectors[:, keep].T @ (problem.correlation / (problem.scales * problem.target_scale))) / roots
    return roots[:, None] * vectors[:, keep].T, right
