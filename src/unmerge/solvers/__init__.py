"""Small sparse problems in Gram form: one method a file, one table of all."""

from functools import partial

from unmerge.solvers.best_subset import best_subset
from unmerge.solvers.cosamp import cosamp
from unmerge.solvers.dot_product import dot_product
from unmerge.solvers.elastic_net import elastic_net
from unmerge.solvers.group_lasso import group_lasso
from unmerge.solvers.iterative_hard_thresholding import iterative_hard_thresholding
from unmerge.solvers.lasso import lasso
from unmerge.solvers.nnls import nnls
from unmerge.solvers.nonnegative_lasso import nonnegative_lasso
from unmerge.solvers.nonnegative_omp import nonnegative_omp
from unmerge.solvers.omp import omp
from unmerge.solvers.problem import Blocks, Problem, Solution, Solver
from unmerge.solvers.ridge import ridge
from unmerge.solvers.sparse_autoencoder import sparse_autoencoder
from unmerge.solvers.sparse_group_lasso import sparse_group_lasso

#: the partitions that the group methods ask a problem for
LAYERS, KINDS = "layers", "kinds"

#: every method, by the name that ``--method`` takes
SOLVERS: dict[str, Solver] = {
    "dot": dot_product,
    "ridge": ridge,
    "lasso": lasso,
    "nonnegative_lasso": nonnegative_lasso,
    "elastic_net": elastic_net,
    "group_lasso_layers": partial(group_lasso, partition=LAYERS),
    "group_lasso_kinds": partial(group_lasso, partition=KINDS),
    "sparse_group_lasso_layers": partial(sparse_group_lasso, partition=LAYERS),
    "sparse_group_lasso_kinds": partial(sparse_group_lasso, partition=KINDS),
    "nnls": nnls,
    "omp": omp,
    "nonnegative_omp": nonnegative_omp,
    "iht": iterative_hard_thresholding,
    "cosamp": cosamp,
    "best_subset": best_subset,
    "sparse_autoencoder": sparse_autoencoder,
}

__all__ = ["KINDS", "LAYERS", "SOLVERS", "Blocks", "Problem", "Solution", "Solver"]
