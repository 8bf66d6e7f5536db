"""Orthogonal matching pursuit (Pati, Rezaiifar and Krishnaprasad, 1993), in its Gram form (Rubinstein et al., 2008).

Repeat: take the atom with the largest |cosine| with the residual, then refit all chosen atoms by least squares.
Stops by a stated rule: the next atom would lower ||t - V c||^2 by less than ``gain`` ||t||^2. Every chosen atom is
named unless its coefficient is negative: a merge adds, so a negative coefficient names nothing.
"""

from __future__ import annotations

import numpy as np

from unmerge.solvers.problem import Problem, Solution

#: the least share of ||t||^2 that an atom must bring
GAIN = 0.01


def omp(problem: Problem, gain: float = GAIN) -> Solution:
    """Greedy selection. Equivalent: ``sklearn.linear_model.orthogonal_mp_gram`` with ``tol`` chosen by the stopping rule."""
    scales = problem.scales
    cosines = problem.gram / np.outer(scales, scales)
    right = problem.correlation / scales
    chosen: list[int] = []
    coefficients = np.zeros(problem.size)
    residual = problem.norm_squared
    stopped = "every atom was taken"
    while len(chosen) < problem.size:
        with_residual = np.abs(problem.gradient(coefficients)) / scales
        with_residual[chosen] = -1.0
        candidate = [*chosen, int(np.argmax(with_residual))]
        # among unit atoms, so that a short atom beside a long one is not taken for a singular matrix
        fitted, *_ = np.linalg.lstsq(cosines[np.ix_(candidate, candidate)], right[candidate], rcond=None)
        trial = np.zeros(problem.size)
        trial[candidate] = fitted / scales[candidate]
        remaining = problem.residual_squared(trial)
        if residual - remaining < gain * problem.norm_squared or problem.norm_squared <= 0:
            stopped = f"the next atom would lower the squared error by less than {gain:g} of the target's squared norm"
            break
        chosen, coefficients, residual = candidate, trial, remaining
    on_chosen = problem.gradient(coefficients)[chosen] / (scales[chosen] * problem.target_scale)
    return Solution(
        coefficients=coefficients,
        named=coefficients > 0,
        residual_squared=problem.residual_squared(coefficients),
        violation=float(np.abs(on_chosen).max(initial=0.0)),
        steps=len(chosen),
        stopped=stopped,
    )
