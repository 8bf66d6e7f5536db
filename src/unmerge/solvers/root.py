"""A problem of n rows with the same solutions as the one over all weights.

G = R^T R turns ||t - V c||^2 into ||r - R c||^2 + constant, with R (k x n) of rank k <= n and R^T r = b. Solvers that want a
design matrix get this one. R comes from the eigenvectors of the atoms' cosines, so that coinciding atoms (a singular G) are no
trouble.
"""

from __future__ import annotations

import numpy as np

from unmerge.solvers.problem import Matrix, Problem, Vector


def root(problem: Problem) -> tuple[Matrix, Vector]:
    """(R, r) with R^T R the cosines between the atoms and R^T r those with the target; no rows without atoms."""
    if not problem.size:
        return np.zeros((0, 0)), np.zeros(0)
    values, vectors = np.linalg.eigh(problem.cosines)
    keep = values > max(values[-1], 0.0) * problem.size * np.finfo(np.float64).eps
    roots = np.sqrt(values[keep])
    return roots[:, None] * vectors[:, keep].T, (vectors[:, keep].T @ problem.target_cosines) / roots
