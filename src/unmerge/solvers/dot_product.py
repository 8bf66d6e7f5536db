"""Dot product: each atom by itself.

    c_i = <v_i, t> / ||v_i||^2

The projection of the target on every atom, as if the others were not there. Exact where atoms are orthogonal; counts
shared directions once for every atom that shares them. Named: ||c_i v_i|| >= 0.1 ||t||, that is a cosine of at least 0.1.
"""

from __future__ import annotations

from unmerge.solvers.problem import Problem, Solution, named_by_share


def dot_product(problem: Problem) -> Solution:
    """Solve atom by atom. Equivalent: ``V.T @ t / (V * V).sum(0)``."""
    coefficients = problem.coefficients(problem.target_cosines)
    return Solution(
        coefficients=coefficients,
        named=named_by_share(problem, coefficients),
        residual_squared=problem.residual_squared(coefficients),
        violation=None,
        steps=1,
        stopped="closed form",
    )
