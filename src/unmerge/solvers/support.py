"""Least squares on some atoms only, and how many atoms to take: what the methods that choose a support share.

The level rule. A method that must be told the number of atoms s is run for s = 0, 1, 2, ... and the level taken is the one with
the least

    ||t - V c_s||^2 / ||t||^2  +  GAIN s

An atom stays only if it lowers the squared error by GAIN of the target's squared norm, which a lone atom does when it contributes
a tenth of the target's length. The rule looks at the target's norm and at nothing else; it assumes that what is worth naming
is that large, and makes no assumption on noise. (An information criterion would charge an atom by the noise and the number of
weights; the weights of a task vector are neither independent nor noisy by a known amount.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from unmerge.solvers.problem import GAIN, Problem, Vector


def refit(problem: Problem, support: Sequence[int]) -> Vector:
    """(n,) shares: least squares on the atoms of the support, the shortest where they are dependent; 0 elsewhere."""
    chosen = list(support)
    shares = np.zeros(problem.size)
    # among unit atoms, so that a short atom beside a long one is not taken for a singular matrix
    shares[chosen] = np.linalg.lstsq(problem.cosines[np.ix_(chosen, chosen)], problem.target_cosines[chosen], rcond=None)[0]
    return shares


def normal_violation(problem: Problem, shares: Vector, support: Sequence[int]) -> float:
    """How far the residual is from orthogonal to the support: the largest |product| with a unit atom, over ||t||."""
    return float(np.abs(problem.share_gradient(shares)[list(support)]).max(initial=0.0))


def largest(values: Vector, count: int) -> list[int]:
    """Where the ``count`` largest absolute values are, zeros left out, in ascending order; the first of equals."""
    order = np.argsort(-np.abs(values), kind="stable")[:count]
    return sorted(int(place) for place in order if values[place] != 0)


def best_level(problem: Problem, at: Callable[[int], tuple[Vector, int]], gain: float = GAIN) -> tuple[Vector, int, int]:
    """Run a method at every level that could be the best one.

    Args:
        problem: to solve.
        at: given a level, at least 1, the shares (n,) found with at most that many atoms, and the steps taken.
        gain: what an atom costs.

    Returns:
        (shares of the best level, the level, steps over all levels).
    """
    best, level, steps = np.zeros(problem.size), 0, 0
    least = problem.share_error(best)
    for candidate in range(1, problem.size + 1):
        if gain * candidate >= least:  # no error is below zero
            break
        shares, taken = at(candidate)
        steps += taken
        if (cost := problem.share_error(shares) + gain * candidate) < least:
            best, level, least = shares, candidate, cost
    return best, level, steps
