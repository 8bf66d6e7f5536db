"""Ridge, lasso, non-negative lasso, elastic net: optimality conditions, other algorithms, limits where two methods agree."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import lsq_linear
from sklearn.linear_model import LassoLars, Ridge

from unmerge.solvers import Problem
from unmerge.solvers.elastic_net import elastic_net
from unmerge.solvers.lasso import lasso
from unmerge.solvers.nnls import nnls
from unmerge.solvers.nonnegative_lasso import nonnegative_lasso
from unmerge.solvers.optimality import lambda_max, verdict
from unmerge.solvers.ridge import ridge

Array = NDArray[np.float64]
Make = Callable[[str], tuple[Array, Array]]
Case = tuple[str, Array, Array]

REGULAR = ["random", "mixture", "orthogonal", "norms far apart", "one atom"]


def unit(v: Array, t: Array) -> tuple[Array, Array]:
    """Atoms and target of length 1; what is zero stays so."""
    return v / np.where(v.any(0), np.linalg.norm(v, axis=0), 1.0), t / (np.linalg.norm(t) or 1.0)


def check_conditions(x: Array, products: Array, l1: float, positive: bool) -> None:
    """Karush-Kuhn-Tucker conditions, case by case; products: of the unit atoms with what is left of the unit target."""
    sign = 1.0 if positive else np.sign(x)
    assert np.abs(products - l1 * sign)[x != 0].max(initial=0) < 1e-9
    off = products[x == 0] if positive else np.abs(products[x == 0])
    assert (off - l1).max(initial=-1) < 1e-9
    assert not positive or (x >= 0).all()


@pytest.mark.parametrize("penalty", [0.1, 0.01])
def test_lasso_conditions(case: Case, penalty: float) -> None:
    _, v, t = case
    v, t = unit(v, t)
    for solver, positive in ((lasso, False), (nonnegative_lasso, True)):
        x = solver(Problem.of(v, t), penalty).coefficients
        check_conditions(x, v.T @ (t - v @ x), penalty, positive)


@pytest.mark.parametrize("l2", [0.1, 0.001])
def test_elastic_net_conditions(case: Case, l2: float) -> None:
    _, v, t = case
    v, t = unit(v, t)
    x = elastic_net(Problem.of(v, t), 0.1, l2).coefficients
    check_conditions(x, v.T @ (t - v @ x) - l2 * x, 0.1, positive=False)


@pytest.mark.parametrize("name", [*REGULAR, "an atom that changes nothing"])
@pytest.mark.parametrize("penalty", [0.1, 0.01])
def test_lasso_against_least_angle_regression(make: Make, name: str, penalty: float) -> None:
    v, t = unit(*make(name))
    lars = LassoLars(alpha=penalty / len(t), fit_intercept=False).fit(v, t)
    np.testing.assert_allclose(lasso(Problem.of(v, t), penalty).coefficients, lars.coef_, atol=1e-8)


@pytest.mark.parametrize("name", REGULAR)
@pytest.mark.parametrize("penalty", [0.1, 0.01])
def test_nonnegative_lasso_is_a_bounded_quadratic_problem(make: Make, name: str, penalty: float) -> None:
    """With G regular, l1 is a shift of the right-hand side; scipy's bounded solver sees no penalty at all."""
    v, t = unit(*make(name))
    lower = np.linalg.cholesky(v.T @ v)
    bounded = lsq_linear(lower.T, np.linalg.solve(lower, v.T @ t - penalty), bounds=(0, np.inf), method="bvls", tol=1e-14)
    np.testing.assert_allclose(nonnegative_lasso(Problem.of(v, t), penalty).coefficients, bounded.x, atol=1e-8)


@pytest.mark.parametrize("name", REGULAR)
def test_elastic_net_is_a_lasso_with_more_rows(make: Make, name: str) -> None:
    """l2/2 ||x||^2 is the squared error of n more rows, sqrt(l2) I against zero (Zou and Hastie, lemma 1)."""
    v, t = unit(*make(name))
    n = v.shape[1]
    longer, goal = np.vstack([v, np.sqrt(0.1) * np.eye(n)]), np.concatenate([t, np.zeros(n)])
    lars = LassoLars(alpha=0.1 / len(goal), fit_intercept=False).fit(longer, goal)
    np.testing.assert_allclose(elastic_net(Problem.of(v, t), 0.1, 0.1).coefficients, lars.coef_, atol=1e-8)


@pytest.mark.parametrize("alpha", [0.01, 1.0])
def test_ridge_against_scikit_learn(case: Case, alpha: float) -> None:
    _, v, t = case
    v, t = unit(v, t)
    found = ridge(Problem.of(v, t), alpha)
    if v.size:
        np.testing.assert_allclose(found.coefficients, Ridge(alpha=alpha, fit_intercept=False, solver="svd").fit(v, t).coef_, atol=1e-9)


def test_ridge_shares_a_coefficient_between_atoms_that_coincide(make: Make) -> None:
    found = ridge(Problem.of(*make("coinciding atoms"))).coefficients
    assert found[0] == pytest.approx(found[4])
    assert found[0] > 0.4


@pytest.mark.parametrize("name", ["random", "mixture", "orthogonal", "one atom"])
def test_limits_where_two_methods_agree(make: Make, name: str) -> None:
    problem = Problem.of(*make(name))
    np.testing.assert_allclose(nonnegative_lasso(problem, 0.0).coefficients, nnls(problem).coefficients, atol=1e-9)
    np.testing.assert_allclose(elastic_net(problem, 0.1, 0.0).coefficients, lasso(problem, 0.1).coefficients, atol=1e-9)
    np.testing.assert_allclose(elastic_net(problem, 0.0, 0.01).coefficients, ridge(problem, 0.01).coefficients, atol=1e-9)
    least_squares = np.linalg.lstsq(*make(name), rcond=None)[0]
    np.testing.assert_allclose(lasso(problem, 0.0).coefficients, least_squares, atol=1e-8)
    np.testing.assert_allclose(ridge(problem, 0.0).coefficients, least_squares, atol=1e-8)


@pytest.mark.parametrize("l2", [0.0, 0.1])
def test_no_atom_enters_at_lambda_max(make: Make, l2: float) -> None:
    problem = Problem.of(*make("mixture"))
    edge = lambda_max(problem.target_cosines)
    above, below = (elastic_net(problem, edge * factor, l2) for factor in (1.0, 0.999))
    assert not above.coefficients.any()
    assert above.stopped == "no atom's product with the target exceeds the penalty"
    assert np.count_nonzero(below.coefficients) == 1


def test_the_penalty_is_in_units_of_the_target() -> None:
    """Orthogonal atoms, contributions of .995 and .1 of the target: soft thresholding at the penalty."""
    t = np.array([np.sqrt(0.99), 0.1])
    problem = Problem.of(np.diag([3.0, 0.2]), 7 * t)
    np.testing.assert_allclose(problem.shares(lasso(problem, 0.04).coefficients), t - 0.04, atol=1e-9)
    assert lasso(problem, 0.11).named.tolist() == [True, False]


def test_a_verdict_says_when_it_is_not_rounding() -> None:
    assert verdict(1e-12) == "the Karush-Kuhn-Tucker conditions hold"
    assert "violated by 1.0e-03" in verdict(1e-3)
