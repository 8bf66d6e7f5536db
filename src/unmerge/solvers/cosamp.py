"""CoSaMP, compressive sampling matching pursuit (Needell and Tropp, Appl. Comput. Harmon. Anal. 2009).

Repeat at level s: join the present support with the 2s atoms that have the largest |product| with the residual, solve least squares
on the union, keep the s largest shares. Unlike ``omp`` it can drop an atom again. Here the pruned support is refitted before the
next round, and the round is kept only while the squared error falls (the authors' own suggestions), so that it ends.
Recovers s-sparse combinations of atoms with restricted isometry constant delta_4s <= 0.1.
The level s minimises ||t - V c_s||^2 + GAIN s ||t||^2 (``support`` states the rule). Named: contributions of at least
0.1 ||t||.
"""

from __future__ import annotations

import numpy as np

from unmerge.solvers.problem import GAIN, Problem, Solution, Vector
from unmerge.solvers.support import best_level, largest, normal_violation, refit


def cosamp(problem: Problem, gain: float = GAIN) -> Solution:
    """Solve at every level that could be the best one. Violation: of the normal equations on the support."""
    shares, level, steps = best_level(problem, lambda size: _at_level(problem, size), gain)
    return problem.answer(
        shares,
        violation=normal_violation(problem, shares, np.flatnonzero(shares).tolist()),
        steps=steps,
        stopped=f"the error stopped falling at level {level}, the one with the least squared error plus {gain:g} for each atom",
    )


def _at_level(problem: Problem, level: int) -> tuple[Vector, int]:
    """The best s-sparse shares that the rounds lead to, and how many rounds."""
    shares, rounds = np.zeros(problem.size), 0
    error = problem.share_error(shares)
    while True:
        rounds += 1
        joined = sorted({*np.flatnonzero(shares).tolist(), *largest(problem.share_gradient(shares), 2 * level)})
        trial = refit(problem, largest(refit(problem, joined), level))
        remaining = problem.share_error(trial)
        if not remaining < error - np.finfo(np.float64).eps:
            return shares, rounds
        shares, error = trial, remaining
