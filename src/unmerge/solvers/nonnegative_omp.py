"""Non-negative orthogonal matching pursuit (Bruckstein, Elad and Zibulevsky, IEEE Trans. Inf. Theory 2008).

Repeat: take the atom with the largest positive cosine with the residual, then refit all chosen atoms by non-negative least squares.
Stops as ``omp`` does: the next atom would lower ||t - V c||^2 by less than ``gain`` ||t||^2, or no atom has a positive cosine left. Same
atoms as ``omp`` where its coefficients stay positive. Named: contributions of at least 0.1 ||t||; the refit may set a
chosen atom back to zero.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from unmerge.solvers.nnls import nonnegative_shares
from unmerge.solvers.omp import pursue
from unmerge.solvers.optimality import nonnegative, violation
from unmerge.solvers.problem import GAIN, Problem, Solution, Vector


def nonnegative_omp(problem: Problem, gain: float = GAIN) -> Solution:
    """Greedy selection of what adds. Violation: of the Karush-Kuhn-Tucker conditions on the chosen atoms."""
    shares, chosen, stopped = pursue(problem, gain, lambda products: np.maximum(products, 0.0), _fit)
    return problem.answer(
        shares,
        violation=violation(shares[chosen], problem.share_gradient(shares)[chosen], nonnegative),
        steps=len(chosen),
        stopped=stopped,
    )


def _fit(problem: Problem, support: Sequence[int]) -> Vector:
    chosen = list(support)
    shares = np.zeros(problem.size)
    shares[chosen] = nonnegative_shares(problem.only(chosen))
    return shares
