"""Iterative hard thresholding (Blumensath and Davies, J. Fourier Anal. Appl. 2008).

    x <- H_s(x - mu grad),   mu = 1 / lambda_max(K)

x: shares, K: the atoms' cosines, H_s: keep the s largest in absolute value. With this step the squared error never grows. It
ends at a fixed point: the least-squares solution on its own support, from which no single gradient step leads to another
support. That is a local minimum over s-sparse vectors; the global one where atoms are nearly orthogonal (restricted isometry).
The level s minimises ||t - V c_s||^2 + GAIN s ||t||^2 (``support`` states the rule). Named: contributions of at least
0.1 ||t||.
"""

from __future__ import annotations

import numpy as np

from unmerge.solvers.problem import GAIN, Problem, Solution, Vector
from unmerge.solvers.support import best_level, largest, refit

#: gradient steps at one level
_STEPS = 1000


def iterative_hard_thresholding(problem: Problem, gain: float = GAIN) -> Solution:
    """Solve at every level that could be the best one, each from zero. Violation: of the fixed point."""
    step = 1.0 / max(float(np.linalg.eigvalsh(problem.cosines)[-1]), 1.0) if problem.size else 1.0
    shares, level, steps = best_level(problem, lambda size: _at_level(problem, size, step), gain)
    return problem.answer(
        shares,
        violation=float(np.abs(_step(problem, shares, level, step) - shares).max(initial=0.0)),
        steps=steps,
        stopped=f"a fixed point at level {level}, the one with the least squared error plus {gain:g} for each atom",
    )


def _at_level(problem: Problem, level: int, step: float) -> tuple[Vector, int]:
    """The fixed point reached from zero, and the steps it took."""
    shares = np.zeros(problem.size)
    support: list[int] = []
    for count in range(1, _STEPS + 1):
        shares = _step(problem, shares, level, step)
        before, support = support, largest(shares, level)
        if support == before:
            # where the support stays, the steps lead to least squares on it: go there at once, if that is a fixed point
            fitted = refit(problem, support)
            if np.allclose(_step(problem, fitted, level, step), fitted, rtol=0, atol=1e-12):
                return fitted, count
    return refit(problem, support), _STEPS


def _step(problem: Problem, shares: Vector, level: int, step: float) -> Vector:
    moved = shares - step * problem.share_gradient(shares)
    kept = np.zeros_like(moved)
    places = largest(moved, level)
    kept[places] = moved[places]
    return kept
