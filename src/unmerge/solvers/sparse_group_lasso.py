"""Sparse group lasso (Simon, Friedman, Hastie and Tibshirani, J. Comp. Graph. Stat. 2013), groups standardised.

The weights fall into m blocks (layers, or kinds of module), and an atom has a coefficient in each: its m coefficients are a group.
With z_bi = c_bi ||v_bi|| / ||t||, the share that atom i contributes in block b,

    minimise 1/2 sum_b ||t_b - V_b c_b||^2 / ||t||^2 + lambda [ (1 - alpha) sum_i ||z_.i||_2 + alpha sum_i sum_b |z_bi| / sqrt(m_i) ]

m_i: the number of blocks that atom i changes. lambda = 0.1, alpha = 0.5: an atom that contributes evenly to its blocks enters when
its contribution exceeds a tenth of the target's length, as in ``lasso``, and the l1 part lets it be absent from some of them. With
one block it is the lasso for every alpha, with alpha = 0 the group lasso.
Blocks share no weights, so within a group the problem is a multiple of the identity (Simon and Tibshirani, Standardization and the
group lasso penalty, 2012), and block coordinate descent over atoms has each step in closed form: soft thresholding, then
shortening the group. The minimum is global. One coefficient for each atom is the mean over blocks weighted by the share of the
atom's squared norm in each. Named: contributions of at least 0.1 ||t|| at that coefficient.
"""

from __future__ import annotations

import numpy as np

from unmerge.solvers.optimality import group_shrunk, shrunk, verdict, violation
from unmerge.solvers.problem import NAMED_SHARE, Matrix, Problem, Solution

#: sweeps end when the optimality conditions hold to this, or after so many
_TOLERANCE, _SWEEPS = 1e-10, 10_000
#: the share of the penalty that is l1
ALPHA = 0.5


def sparse_group_lasso(problem: Problem, partition: str, penalty: float = NAMED_SHARE, alpha: float = ALPHA) -> Solution:
    """Solve over the blocks of one of the problem's partitions; without that partition all weights are one block."""
    blocks = problem.blocks(partition)
    scales = np.where(blocks.norms > 0, blocks.norms, 1.0)
    # (m, n, n) and (m, n): cosines within each block, and products with the target in units of its whole length
    cosines = blocks.gram / (scales[:, :, None] * scales[:, None, :])
    products = blocks.correlation / (scales * problem.target_scale)
    single, group = penalty * alpha / np.sqrt(np.maximum((blocks.norms > 0).sum(0), 1)), penalty * (1 - alpha)

    def proximal(z: Matrix) -> Matrix:
        return group_shrunk(shrunk(z, single), group)

    z, gradient = np.zeros_like(products), -products
    sweeps = 0
    while (found := violation(z, gradient, proximal)) > _TOLERANCE and sweeps < _SWEEPS:
        sweeps += 1
        for atom in range(problem.size):
            moved = group_shrunk(shrunk(z[:, [atom]] - gradient[:, [atom]], single[atom]), group)[:, 0] - z[:, atom]
            if moved.any():
                z[:, atom] += moved
                gradient += cosines[:, :, atom] * moved[:, None]
        gradient = (cosines @ z[:, :, None])[:, :, 0] - products  # afresh, so that rounding does not add up
    by_block = z * problem.target_scale / scales
    return problem.answer(
        problem.shares(blocks.combined(by_block)),
        violation=found,
        steps=sweeps,
        stopped=verdict(found),
        by_block=by_block,
    )
