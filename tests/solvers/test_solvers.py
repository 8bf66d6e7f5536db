"""Every solver against the expanded vectors: optimality, independent implementations, limits where two methods agree."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import lsq_linear
from scipy.optimize import nnls as scipy_nnls
from sklearn.linear_model import orthogonal_mp

from unmerge.solvers import SOLVERS, Problem
from unmerge.solvers.dot_product import dot_product
from unmerge.solvers.nnls import kkt_violation, nnls
from unmerge.solvers.omp import GAIN, omp
from unmerge.solvers.problem import NAMED_SHARE

Array = NDArray[np.float64]


def problem_of(v: Array, t: Array) -> Problem:
    """The problem in Gram form, from the expanded atoms (weights, n) and target (weights,)."""
    return Problem(v.T @ v, v.T @ t, float(t @ t))


def random(rows: int, columns: int, seed: int = 0) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((rows, columns)), rng.standard_normal(rows)


def mixture() -> tuple[Array, Array]:
    """Atoms at a cosine of about .5 with one another, three of them in the target, and noise."""
    v, noise = random(200, 8, 1)
    v += v.mean(1, keepdims=True) * 3
    return v, v @ np.array([0.5, 0, 0.8, 0, 0, 1.2, 0, 0]) + 0.3 * noise


def orthogonal() -> tuple[Array, Array]:
    v, t = random(40, 6, 2)
    return np.linalg.qr(v)[0] * np.array([1.0, 2, 3, 4, 5, 6]), t


def twins() -> tuple[Array, Array]:
    """Two atoms that coincide, and one that is the sum of two others."""
    v, _ = random(60, 4, 3)
    v = np.column_stack([v, v[:, 0], v[:, 1] + v[:, 2]])
    return v, v @ np.array([1.0, 0.5, 0.5, 0, 0.5, 0])


def crowded() -> tuple[Array, Array]:
    """More atoms than weights."""
    return random(6, 15, 4)


def one_changes_nothing() -> tuple[Array, Array]:
    v, t = random(30, 4, 5)
    v[:, 2] = 0
    return v, t + v.sum(1)


def opposite() -> tuple[Array, Array]:
    v, t = random(30, 3, 6)
    return np.column_stack([v, -v[:, 0]]), t


def far_apart() -> tuple[Array, Array]:
    """Atoms whose norms differ by 14 orders of magnitude, and a small target."""
    v, t = mixture()
    return v * np.logspace(-7, 7, 8), 1e-6 * t


def uncorrelated() -> tuple[Array, Array]:
    v, t = random(30, 4, 7)
    return v, t - v @ np.linalg.lstsq(v, t, rcond=None)[0]


def against() -> tuple[Array, Array]:
    """Every correlation is negative: zero is the best non-negative answer."""
    v, _ = random(30, 3, 8)
    v = np.abs(v)
    return v, -v.sum(1)


CASES: dict[str, Callable[[], tuple[Array, Array]]] = {
    "random": lambda: random(50, 7),
    "mixture": mixture,
    "orthogonal": orthogonal,
    "coinciding atoms": twins,
    "more atoms than weights": crowded,
    "an atom that changes nothing": one_changes_nothing,
    "opposite atoms": opposite,
    "norms far apart": far_apart,
    "zero correlation": uncorrelated,
    "negative correlation": against,
    "one atom": lambda: random(10, 1, 9),
    "zero target": lambda: (random(10, 3)[0], np.zeros(10)),
    "atoms that change nothing": lambda: (np.zeros((10, 3)), random(10, 3)[1]),
    "no atoms": lambda: (np.zeros((10, 0)), random(10, 3)[1]),
}
#: where the least-squares answer is not unique, only errors can be compared
SINGULAR = {"coinciding atoms", "more atoms than weights", "opposite atoms"}

Case = tuple[str, Array, Array, Problem]


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    v, t = CASES[request.param]()
    return request.param, v, t, problem_of(v, t)


def cosines(v: Array, residual: Array, t: Array) -> Array:
    """Of the residual with each atom, in units of ||t||; computed from the expanded vectors."""
    norms = np.linalg.norm(v, axis=0) * (np.linalg.norm(t) or 1.0)
    result: Array = np.divide(v.T @ residual, norms, out=np.zeros(v.shape[1]), where=norms > 0)
    return result


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.filterwarnings("error")
def test_a_solution_is_what_it_says(case: Case, name: str) -> None:
    _, v, t, problem = case
    solution = SOLVERS[name](problem)
    assert solution.coefficients.shape == solution.named.shape == (v.shape[1],)
    assert solution.named.dtype == np.bool_
    assert np.isfinite(solution.coefficients).all()
    assert not solution.named[solution.coefficients <= 0].any(), "a merge adds: what is not positive is not named"
    assert solution.residual_squared == pytest.approx(np.sum((t - v @ solution.coefficients) ** 2), rel=1e-9, abs=1e-12 * float(t @ t))
    assert solution.violation is None or solution.violation < 1e-9
    assert solution.stopped


def test_nnls_satisfies_the_karush_kuhn_tucker_conditions(case: Case) -> None:
    _, v, t, problem = case
    found = nnls(problem).coefficients
    assert (found >= 0).all()
    with_residual = cosines(v, t - v @ found, t)
    assert np.abs(with_residual[found > 0]).max(initial=0) < 1e-9
    assert with_residual[found == 0].max(initial=0) < 1e-9


@pytest.mark.parametrize("name", [name for name, make in CASES.items() if make()[0].any() and make()[1].any()])
def test_nnls_against_two_other_implementations(name: str) -> None:
    v, t = CASES[name]()
    scale, size = np.where(v.any(0), np.linalg.norm(v, axis=0), 1.0), float(np.linalg.norm(t))
    active, error = scipy_nnls(v / scale, t / size, maxiter=1000)
    bounded = lsq_linear(v / scale, t / size, bounds=(0, np.inf), method="bvls", tol=1e-14)
    found = nnls(problem_of(v, t))
    assert found.residual_squared / size**2 == pytest.approx(error**2, abs=1e-10)
    assert found.residual_squared / size**2 == pytest.approx(2 * bounded.cost, abs=1e-10)
    if name not in SINGULAR:
        np.testing.assert_allclose(found.coefficients * scale / size, active, atol=1e-8)
        np.testing.assert_allclose(found.coefficients * scale / size, bounded.x, atol=1e-6)


def test_the_violation_sees_what_is_not_optimal() -> None:
    problem = problem_of(*mixture())
    best = nnls(problem).coefficients
    on = int(np.argmax(best))
    for wrong in (best * 1.1, np.zeros(problem.size), -best, best + 0.1 * np.eye(problem.size)[on]):
        assert kkt_violation(problem, wrong) > 1e-2


def test_singular_problems_of_every_kind() -> None:
    """Random atoms in few dimensions, copied and added up: the answer must be as good as scipy's on the expanded vectors."""
    for seed in range(100):
        rng = np.random.default_rng(seed)
        basis = rng.standard_normal((20, rng.integers(1, 5)))
        v = basis @ rng.integers(-2, 3, (basis.shape[1], rng.integers(2, 12)))
        t = rng.standard_normal(20) + v.sum(1)
        solution = nnls(problem_of(v, t))
        assert solution.violation is not None
        assert solution.violation < 1e-7
        assert solution.stopped == "the Karush-Kuhn-Tucker conditions hold"
        assert solution.residual_squared == pytest.approx(scipy_nnls(v, t)[1] ** 2, rel=1e-8)


def test_dot_product_is_the_projection_on_each_atom(case: Case) -> None:
    _, v, t, problem = case
    expected = [float(atom @ t / (atom @ atom)) if atom.any() else 0.0 for atom in v.T]
    np.testing.assert_allclose(dot_product(problem).coefficients, expected, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("name", ["random", "mixture", "orthogonal", "an atom that changes nothing", "norms far apart", "one atom"])
@pytest.mark.parametrize("gain", [GAIN, 0.1, 1e-6])
def test_omp_against_scikit_learn(name: str, gain: float) -> None:
    """Ours stops by its own rule; as many steps of theirs give the same atoms, and the rule is checked on their errors."""
    v, t = CASES[name]()
    scale, size = np.where(v.any(0), np.linalg.norm(v, axis=0), 1.0), float(np.linalg.norm(t))
    found = omp(problem_of(v, t), gain)
    steps = range(1, int(v.any(0).sum()) + 1)
    theirs = [np.zeros(v.shape[1]), *(np.atleast_1d(orthogonal_mp(v / scale, t / size, n_nonzero_coefs=count)) for count in steps)]
    np.testing.assert_allclose(found.coefficients * scale / size, theirs[found.steps], atol=1e-8)
    errors = [float(np.sum((t / size - v / scale @ coefficients) ** 2)) for coefficients in theirs]
    gains = -np.diff(errors)
    assert (gains[: found.steps] >= gain).all()
    if found.steps < len(gains):
        assert gains[found.steps] < gain
        assert found.stopped.startswith("the next atom would lower")


def test_omp_leaves_the_chosen_atoms_uncorrelated_with_the_residual(case: Case) -> None:
    _, v, t, problem = case
    found = omp(problem, 1e-4).coefficients
    assert np.abs(cosines(v, t - v @ found, t)[found != 0]).max(initial=0) < 1e-9


def test_omp_takes_one_of_two_that_coincide() -> None:
    v, t = twins()
    found = omp(problem_of(v, t))
    assert found.steps <= 3
    assert found.residual_squared < 1e-12 * (t @ t)
    assert np.count_nonzero(found.coefficients[[0, 4]]) == 1


def test_omp_finds_a_sparse_mixture_and_does_not_name_what_is_subtracted() -> None:
    v, _ = random(300, 20, 11)
    truth = np.zeros(20)
    truth[[3, 7, 12]] = [0.5, 1.0, -0.7]
    found = omp(problem_of(v, v @ truth))
    np.testing.assert_allclose(found.coefficients, truth, atol=1e-10)
    assert np.flatnonzero(found.named).tolist() == [3, 7]


def test_orthogonal_atoms_are_where_all_methods_agree() -> None:
    v, t = orthogonal()
    t = 0.1 * t + v @ np.array([1.0, 0.5, 0.7, 0.4, 0.3, -0.2])
    problem = problem_of(v, t)
    alone = dot_product(problem).coefficients
    assert (alone < 0).any()
    assert problem.condition() == pytest.approx(1)
    np.testing.assert_allclose(nnls(problem).coefficients, np.maximum(alone, 0), atol=1e-10)
    np.testing.assert_allclose(omp(problem, 0.0).coefficients, alone, atol=1e-10)


def test_least_squares_is_where_nnls_and_omp_agree() -> None:
    """All coefficients positive and no atom left out: both are the ordinary least-squares solution."""
    v, noise = random(100, 5, 12)
    t = v @ np.array([0.4, 0.6, 0.8, 1.0, 1.2]) + 0.01 * noise
    expected = np.linalg.lstsq(v, t, rcond=None)[0]
    for solver in (nnls, lambda problem: omp(problem, 0.0)):
        np.testing.assert_allclose(solver(problem_of(v, t)).coefficients, expected, atol=1e-10)


@pytest.mark.parametrize("name", SOLVERS)
def test_units_do_not_matter(name: str) -> None:
    """An atom twice as long has half the coefficient; a target twice as long doubles them all; nothing else changes."""
    v, t = mixture()
    plain, lengths = SOLVERS[name](problem_of(v, t)), np.logspace(-5, 4, 8)
    for size in (1e-9, 1e9):
        other = SOLVERS[name](problem_of(v * lengths, t * size))
        np.testing.assert_allclose(other.coefficients * lengths / size, plain.coefficients, rtol=1e-6, atol=1e-10)
        assert (other.named == plain.named).all()


@pytest.mark.parametrize("solver", [dot_product, nnls])
@pytest.mark.parametrize(("share", "named"), [(1.001, True), (0.999, False), (-1.001, False)])
def test_naming_by_share(solver: Callable[..., object], share: float, named: bool) -> None:
    """Two orthogonal atoms; the second brings just more, or just less, than the stated share of the target's norm."""
    small = NAMED_SHARE * share
    t = np.array([np.sqrt(1 - small**2), small])
    problem = problem_of(np.diag([3.0, 0.2]), t)
    solution = SOLVERS["dot" if solver is dot_product else "nnls"](problem)
    assert solution.named.tolist() == [True, named]


@pytest.mark.parametrize("name", ["random", "mixture", "orthogonal", "norms far apart", "one atom"])
def test_condition_is_that_of_the_unit_atoms(name: str) -> None:
    v, t = CASES[name]()
    unit = v / np.linalg.norm(v, axis=0)
    assert problem_of(v, t).condition() == pytest.approx(np.linalg.cond(unit) ** 2, rel=1e-6)


def test_condition_at_its_limits() -> None:
    for name in SINGULAR:
        assert problem_of(*CASES[name]()).condition() == float("inf")
    v, t = one_changes_nothing()
    assert problem_of(v, t).condition() == pytest.approx(problem_of(v[:, [0, 1, 3]], t).condition())
    assert problem_of(np.zeros((5, 2)), np.ones(5)).condition() == 1.0
    assert problem_of(np.zeros((5, 0)), np.ones(5)).condition() == 1.0


def test_the_residual_is_never_negative() -> None:
    """Where the target lies in the span, rounding must not make its squared distance negative."""
    for seed in range(20):
        v, _ = random(30, 6, seed)
        t = v @ np.full(6, 0.3)
        problem = replace(problem_of(v, t))
        assert 0 <= problem.residual_squared(np.full(6, 0.3)) < 1e-12 * (t @ t)
