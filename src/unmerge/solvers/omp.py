"""Orthogonal matching pursuit (Pati, Rezaiifar and Krishnaprasad, 1993), in its Gram form (Rubinstein et al., 2008).

Repeat: take the atom with the largest |cosine| with the residual, then refit all chosen atoms by least squares.
Stops by a stated rule: the next atom would lower ||t - V c||^2 by less than ``gain`` ||t||^2. Recovers k atoms whose largest |cosine|
mu satisfies k < (1 + 1/mu) / 2 (Tropp, 2004). Named: contributions of at least 0.1 ||t||; a merge adds, so a negative coefficient names
nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from unmerge.solvers.problem import GAIN, Problem, Solution, Vector
from unmerge.solvers.support import normal_violation, refit

#: the shares (n,) that fit the target best on some atoms
Fit = Callable[[Problem, Sequence[int]], Vector]


def omp(problem: Problem, gain: float = GAIN) -> Solution:
    """Greedy selection. Equivalent: ``sklearn.linear_model.orthogonal_mp_gram`` with ``tol`` chosen by the stopping rule."""
    shares, chosen, stopped = pursue(problem, gain, np.abs, refit)
    return problem.answer(
        shares,
        violation=normal_violation(problem, shares, chosen),
        steps=len(chosen),
        stopped=stopped,
    )


def pursue(problem: Problem, gain: float, score: Callable[[Vector], Vector], fit: Fit) -> tuple[Vector, list[int], str]:
    """Add atoms one by one while each lowers the squared error by ``gain`` of ||t||^2.

    Args:
        problem: to solve.
        gain: the least share of ||t||^2 that an atom must bring.
        score: of each atom, from its product with the residual; the largest is taken, none at 0 or below.
        fit: the coefficients of the chosen atoms.

    Returns:
        (shares, the atoms in the order chosen, why it stopped).
    """
    shares, chosen = np.zeros(problem.size), list[int]()
    error = problem.share_error(shares)
    while len(chosen) < problem.size:
        scores = score(-problem.share_gradient(shares))
        scores[chosen] = 0.0
        best = int(np.argmax(scores))
        if scores[best] <= 0:
            return shares, chosen, "no atom left goes the way of the residual"
        trial = fit(problem, [*chosen, best])
        remaining = problem.share_error(trial)
        if error - remaining < gain:
            return shares, chosen, f"the next atom would lower the squared error by less than {gain:g} of the target's squared norm"
        chosen, shares, error = [*chosen, best], trial, remaining
    return shares, chosen, "every atom was taken"
