"""Every solver against the expanded vectors, then the two simplest ones: dot product and non-negative least squares."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import lsq_linear
from scipy.optimize import nnls as scipy_nnls

from unmerge.solvers import SOLVERS, Problem
from unmerge.solvers.dot_product import dot_product
from unmerge.solvers.nnls import nnls
from unmerge.solvers.omp import omp
from unmerge.solvers.optimality import nonnegative, violation
from unmerge.solvers.problem import NAMED_SHARE

Array = NDArray[np.float64]
Make = Callable[[str], tuple[Array, Array]]
Case = tuple[str, Array, Array]

#: where the least-squares answer is not unique, only errors can be compared
SINGULAR = {"coinciding atoms", "more atoms than weights", "opposite atoms"}
#: trained, not solved: its violation is the amortisation gap
AMORTISED = {"sparse_autoencoder"}


@pytest.fixture(autouse=True)
def short_training(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What holds for every solver holds for a hardly trained encoder; ``test_sparse_autoencoder`` trains it in full."""
    room = sys.modules["unmerge.solvers.sparse_autoencoder"]
    monkeypatch.setattr(room, "_STEPS", 20)
    room._encoder.cache_clear()
    yield
    room._encoder.cache_clear()


def random(rows: int, columns: int, seed: int = 0) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((rows, columns)), rng.standard_normal(rows)


def cosines(v: Array, residual: Array, t: Array) -> Array:
    """Of the residual with each atom, in units of ||t||; computed from the expanded vectors."""
    norms = np.linalg.norm(v, axis=0) * (np.linalg.norm(t) or 1.0)
    result: Array = np.divide(v.T @ residual, norms, out=np.zeros(v.shape[1]), where=norms > 0)
    return result


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.filterwarnings("error")
def test_a_solution_is_what_it_says(case: Case, name: str) -> None:
    _, v, t = case
    solution = SOLVERS[name](Problem.of(v, t))
    assert solution.coefficients.shape == solution.named.shape == (v.shape[1],)
    assert solution.named.dtype == np.bool_
    assert np.isfinite(solution.coefficients).all()
    contributions = solution.coefficients * np.linalg.norm(v, axis=0) / (np.linalg.norm(t) or 1.0)
    assert not solution.named[contributions < NAMED_SHARE - 1e-9].any(), "a merge adds: what is not positive is not named"
    assert solution.named[contributions > NAMED_SHARE + 1e-9].all()
    assert solution.residual_squared == pytest.approx(np.sum((t - v @ solution.coefficients) ** 2), rel=1e-9, abs=1e-12 * float(t @ t))
    assert solution.violation is None or name in AMORTISED or solution.violation < 1e-9
    assert solution.stopped
    if not t.any() or not v.any():
        assert not solution.coefficients.any()


@pytest.mark.parametrize("name", SOLVERS)
def test_units_do_not_matter(make: Make, name: str) -> None:
    """An atom twice as long has half the coefficient; a target twice as long doubles them all; nothing else changes."""
    v, t = make("mixture")
    plain, lengths = SOLVERS[name](Problem.of(v, t)), np.logspace(-5, 4, 8)
    for size in (1e-9, 1e9):
        other = SOLVERS[name](Problem.of(v * lengths, t * size))
        np.testing.assert_allclose(other.coefficients * lengths / size, plain.coefficients, rtol=1e-6, atol=1e-10)
        assert (other.named == plain.named).all()


@pytest.mark.parametrize("name", SOLVERS)
def test_the_order_of_the_atoms_does_not_matter(make: Make, name: str) -> None:
    v, t = make("mixture")
    order = np.random.default_rng(0).permutation(8)
    plain, other = (SOLVERS[name](Problem.of(atoms, t)) for atoms in (v, v[:, order]))
    # an encoder sees its training mixtures in another order, and ends elsewhere by a little
    np.testing.assert_allclose(other.coefficients, plain.coefficients[order], atol=0.05 if name in AMORTISED else 1e-8)


@pytest.mark.parametrize("name", SOLVERS)
def test_what_stands_apart_is_found(name: str) -> None:
    """Atoms that hardly resemble each other, as adapters to one large model: every method names the right ones."""
    v, noise = random(20_000, 10, 20)
    truth = np.zeros(10)
    truth[[1, 4, 8]] = [1.0, 0.7, 0.5]
    found = SOLVERS[name](Problem.of(v, v @ truth + 0.2 * noise))
    assert np.flatnonzero(found.named).tolist() == [1, 4, 8]
    np.testing.assert_allclose(found.coefficients, truth, atol=0.25)  # l1 penalties shrink


@pytest.mark.parametrize("name", SOLVERS)
def test_what_resembles_no_atom_is_left_unexplained(name: str) -> None:
    v, t = random(20_000, 10, 21)
    found = SOLVERS[name](Problem.of(v, t))
    assert not found.named.any()
    assert found.residual_squared > 0.99 * (t @ t)


def test_nnls_satisfies_the_karush_kuhn_tucker_conditions(case: Case) -> None:
    _, v, t = case
    found = nnls(Problem.of(v, t)).coefficients
    assert (found >= 0).all()
    with_residual = cosines(v, t - v @ found, t)
    assert np.abs(with_residual[found > 0]).max(initial=0) < 1e-9
    assert with_residual[found == 0].max(initial=0) < 1e-9


def test_nnls_against_two_other_implementations(case: Case) -> None:
    name, v, t = case
    scale, size = np.where(v.any(0), np.linalg.norm(v, axis=0), 1.0), float(np.linalg.norm(t)) or 1.0
    found = nnls(Problem.of(v, t))
    if not v.size:
        assert found.residual_squared == pytest.approx(t @ t)
        return
    active, error = scipy_nnls(v / scale, t / size, maxiter=1000)
    bounded = lsq_linear(v / scale, t / size, bounds=(0, np.inf), method="bvls", tol=1e-14)
    assert found.residual_squared / size**2 == pytest.approx(error**2, abs=1e-10)
    assert found.residual_squared / size**2 == pytest.approx(2 * bounded.cost, abs=1e-10)
    if name not in SINGULAR and v.any():
        np.testing.assert_allclose(found.coefficients * scale / size, active, atol=1e-8)
        np.testing.assert_allclose(found.coefficients * scale / size, bounded.x, atol=1e-6)


def test_the_violation_sees_what_is_not_optimal(make: Make) -> None:
    problem = Problem.of(*make("mixture"))
    best = problem.shares(nnls(problem).coefficients)
    on = int(np.argmax(best))
    assert violation(best, problem.share_gradient(best), nonnegative) < 1e-12
    for wrong in (best * 1.1, np.zeros(problem.size), -best, best + 0.1 * np.eye(problem.size)[on]):
        assert violation(wrong, problem.share_gradient(wrong), nonnegative) > 1e-2


def test_singular_problems_of_every_kind() -> None:
    """Random atoms in few dimensions, copied and added up: the answer must be as good as scipy's on the expanded vectors."""
    for seed in range(100):
        rng = np.random.default_rng(seed)
        basis = rng.standard_normal((20, rng.integers(1, 5)))
        v = basis @ rng.integers(-2, 3, (basis.shape[1], rng.integers(2, 12)))
        t = rng.standard_normal(20) + v.sum(1)
        solution = nnls(Problem.of(v, t))
        assert solution.violation is not None
        assert solution.violation < 1e-7
        assert solution.stopped == "the Karush-Kuhn-Tucker conditions hold"
        assert solution.residual_squared == pytest.approx(scipy_nnls(v, t)[1] ** 2, rel=1e-8)


def test_dot_product_is_the_projection_on_each_atom(case: Case) -> None:
    _, v, t = case
    expected = [float(atom @ t / (atom @ atom)) if atom.any() else 0.0 for atom in v.T]
    np.testing.assert_allclose(dot_product(Problem.of(v, t)).coefficients, expected, rtol=1e-9, atol=1e-15)


def test_orthogonal_atoms_are_where_all_methods_agree(make: Make) -> None:
    v, t = make("orthogonal")
    t = 0.1 * t + v @ np.array([1.0, 0.5, 0.7, 0.4, 0.3, -0.2])
    problem = Problem.of(v, t)
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
        np.testing.assert_allclose(solver(Problem.of(v, t)).coefficients, expected, atol=1e-10)


@pytest.mark.parametrize("name", ["dot", "nnls", "omp", "cosamp", "best_subset"])
@pytest.mark.parametrize(("share", "named"), [(1.001, True), (0.999, False), (-1.001, False)])
def test_naming_by_share(name: str, share: float, named: bool) -> None:
    """Two orthogonal atoms; the second brings just more, or just less, than the stated share of the target's norm."""
    small = NAMED_SHARE * share
    t = np.array([np.sqrt(1 - small**2), small])
    assert SOLVERS[name](Problem.of(np.diag([3.0, 0.2]), t)).named.tolist() == [True, named]


@pytest.mark.parametrize("name", ["random", "mixture", "orthogonal", "norms far apart", "one atom"])
def test_condition_is_that_of_the_unit_atoms(make: Make, name: str) -> None:
    v, t = make(name)
    unit = v / np.linalg.norm(v, axis=0)
    assert Problem.of(v, t).condition() == pytest.approx(np.linalg.cond(unit) ** 2, rel=1e-6)


def test_condition_at_its_limits(make: Make) -> None:
    for name in SINGULAR:
        assert Problem.of(*make(name)).condition() == float("inf")
    v, t = make("an atom that changes nothing")
    assert Problem.of(v, t).condition() == pytest.approx(Problem.of(v[:, [0, 1, 3]], t).condition())
    assert Problem.of(np.zeros((5, 2)), np.ones(5)).condition() == 1.0
    assert Problem.of(np.zeros((5, 0)), np.ones(5)).condition() == 1.0


def test_the_residual_is_never_negative() -> None:
    """Where the target lies in the span, rounding must not make its squared distance negative."""
    for seed in range(20):
        v, _ = random(30, 6, seed)
        t = v @ np.full(6, 0.3)
        problem = Problem.of(v, t)
        assert 0 <= problem.residual_squared(np.full(6, 0.3)) < 1e-12 * (t @ t)
        assert 0 <= problem.share_error(problem.shares(np.full(6, 0.3))) < 1e-12


def test_shares_are_contributions_in_units_of_the_target(case: Case) -> None:
    _, v, t = case
    problem, c = Problem.of(v, t), np.linspace(-1, 2, v.shape[1])
    size = float(np.linalg.norm(t)) or 1.0
    shares = problem.shares(c)
    np.testing.assert_allclose(np.abs(shares), [np.linalg.norm(weight * atom) / size for weight, atom in zip(c, v.T, strict=True)], rtol=1e-9)
    changes = np.asarray(v.any(0), dtype=bool)
    np.testing.assert_allclose(problem.coefficients(shares)[changes], c[changes], rtol=1e-9)
    residual = t - v @ c
    np.testing.assert_allclose(
        problem.share_gradient(shares), -cosines(v, residual, t), rtol=1e-6, atol=1e-9 * max(1, float(np.abs(shares).max(initial=0)))
    )
    assert problem.share_error(shares) == pytest.approx(residual @ residual / size**2, rel=1e-6)
