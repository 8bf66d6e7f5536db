"""Small sparse problems in Gram form: one method a file, one table of all."""

from unmerge.solvers.dot_product import dot_product
from unmerge.solvers.nnls import nnls
from unmerge.solvers.omp import omp
from unmerge.solvers.problem import Problem, Solution, Solver

#: every method, by the name that ``--method`` takes
SOLVERS: dict[str, Solver] = {"dot": dot_product, "nnls": nnls, "omp": omp}

__all__ = ["SOLVERS", "Problem", "Solution", "Solver"]
