"""Group lasso (Yuan and Lin, J. R. Statist. Soc. B 2006), groups standardised (Simon and Tibshirani, Statistica Sinica 2012).

    minimise 1/2 sum_b ||t_b - V_b c_b||^2 / ||t||^2 + lambda sum_i ||z_.i||_2,   lambda = 0.1

An atom has one coefficient for each block of the weights (layers, or kinds of module), its coefficients are a group, and atoms are
chosen jointly: in all blocks or in none. ||z_.i|| is the length of what atom i contributes over all blocks, in units of the
target's, so that lambda has the meaning that it has in ``lasso``. The sparse group lasso without its l1 part: see there for
the notation, the algorithm, the one coefficient that stands for a group, and the guarantee. With one block it is the lasso.
Named: contributions of at least 0.1 ||t|| at that coefficient.
"""

from __future__ import annotations

from unmerge.solvers.problem import NAMED_SHARE, Problem, Solution
from unmerge.solvers.sparse_group_lasso import sparse_group_lasso


def group_lasso(problem: Problem, partition: str, penalty: float = NAMED_SHARE) -> Solution:
    """Solve over the blocks of one of the problem's partitions; without that partition all weights are one block."""
    return sparse_group_lasso(problem, partition, penalty, alpha=0.0)
