"""Dot product: each atom by itself.

    c_i = <v_i, t> / ||v_i||^2

The projection of the target on every atom, as if the others were not there. Exact where atoms are orthogonal; counts
shared directions once for every atom that shares them. Named: ||c_i v_i|| >= 0.1 ||t||, that is a cosine of at least 0.1.
"""

from __future__ import annotations

from unmerge.solvers.problem import Problem, Solution


def dot_product(problem: Problem) -> Solution:
    """Solve atom by atom. Equivalent: ``V.T @ t / (V * V).sum(0)``."""
    return problem.answer(
        problem.target_cosines,
        violation=None,
        steps=1,
        stopped="closed form",
    )
