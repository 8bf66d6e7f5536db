"""Non-negative orthogonal matching pursuit (Bruckstein, Elad and Zibulevsky, IEEE Trans. Inf. Theory 2008).

Repeat: take the atom with the largest positive cosine with the residual, then refit all chosen atoms by non-negative least squares.
Stops as ``omp`` does: the next atom would lower ||t - V c||^2 by less than ``gain`` ||t||^2, or no atom has a positive cosine left. Same
atoms as ``omp`` where its coefficients stay positive. Named: c_i > 0; the refit may set a chosen atom back to zero.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from unmerge.solvers.nnls import nonnegative_shares
from unmerge.solvers.omp import pursue
from unmerge.solvers.optimality import nonnegative, violation
from unmerge.solvers.problem import GAIN, Problem, Solution, Vector, named_by_support


def nonnegative_omp(problem: Problem, gain: float = GAIN) -> Solution:
    """Greedy selection of what adds. Violation: of the Karush-Kuhn-Tucker conditions on the chosen atoms."""
    shares, chosen, stopped = pursue(problem, gain, lambda products: np.maximum(products, 0.0), _fit)
    coefficients = problem.coefficients(shares)
    return Solution(
        coefficients=coefficients,
        named=named_by_support(coefficients),
        residual_squared=problem.residual_squared(coefficients),
        violation=violation(shares[chosen], problem.share_gradient(shares)[chosen], nonnegative),
        steps=len(chosen),
        stopped=stopped,
    )


def _fit(problem: Problem, support: Sequence[int]) -> Vector:
    chosen = list(support)
    shares = np.zeros(problem.size)
    shares[chosen] = nonnegative_shares(problem.only(chosen))
    return shares
