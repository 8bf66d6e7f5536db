"""Methods that choose a support: greedy ones, thresholding, and the exact one that they approximate."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import nnls as scipy_nnls
from sklearn.linear_model import orthogonal_mp

from unmerge.core.errors import BadInput
from unmerge.solvers import Problem, Solver
from unmerge.solvers.best_subset import LARGEST, best_subset, subset_errors
from unmerge.solvers.cosamp import cosamp
from unmerge.solvers.iterative_hard_thresholding import iterative_hard_thresholding
from unmerge.solvers.nonnegative_omp import nonnegative_omp
from unmerge.solvers.omp import omp
from unmerge.solvers.problem import GAIN
from unmerge.solvers.support import best_level, largest

Array = NDArray[np.float64]
Make = Callable[[str], tuple[Array, Array]]
Case = tuple[str, Array, Array]

APPROXIMATIONS: dict[str, Solver] = {"omp": omp, "cosamp": cosamp, "iht": iterative_hard_thresholding}


def random(rows: int, columns: int, seed: int = 0) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((rows, columns)), rng.standard_normal(rows)


def unit(v: Array, t: Array) -> tuple[Array, Array]:
    """Atoms and target of length 1; what is zero stays so."""
    return v / np.where(v.any(0), np.linalg.norm(v, axis=0), 1.0), t / (np.linalg.norm(t) or 1.0)


def error(v: Array, t: Array, support: list[int]) -> float:
    """The least squared error on some atoms."""
    if not support:
        return float(t @ t)
    return float(np.sum((t - v[:, support] @ np.linalg.lstsq(v[:, support], t, rcond=1e-10)[0]) ** 2))


def cost(problem: Problem, coefficients: Array) -> float:
    return problem.share_error(problem.shares(coefficients)) + GAIN * np.count_nonzero(coefficients)


@pytest.mark.parametrize("name", ["random", "mixture", "orthogonal", "an atom that changes nothing", "norms far apart", "one atom"])
@pytest.mark.parametrize("gain", [GAIN, 0.1, 1e-6])
def test_omp_against_scikit_learn(make: Make, name: str, gain: float) -> None:
    """Ours stops by its own rule; as many steps of theirs give the same atoms, and the rule is checked on their errors."""
    v, t = make(name)
    scale, size = np.where(v.any(0), np.linalg.norm(v, axis=0), 1.0), float(np.linalg.norm(t))
    found = omp(Problem.of(v, t), gain)
    steps = range(1, int(v.any(0).sum()) + 1)
    theirs = [np.zeros(v.shape[1]), *(np.atleast_1d(orthogonal_mp(v / scale, t / size, n_nonzero_coefs=count)) for count in steps)]
    np.testing.assert_allclose(found.coefficients * scale / size, theirs[found.steps], atol=1e-8)
    errors = [float(np.sum((t / size - v / scale @ coefficients) ** 2)) for coefficients in theirs]
    gains = -np.diff(errors)
    assert (gains[: found.steps] >= gain).all()
    if found.steps < len(gains):
        assert gains[found.steps] < gain
        assert found.stopped.startswith("the next atom would lower")


@pytest.mark.parametrize("solver", [omp, cosamp, iterative_hard_thresholding, best_subset])
def test_the_support_is_uncorrelated_with_the_residual(case: Case, solver: Solver) -> None:
    _, v, t = case
    v, t = unit(v, t)
    found = solver(Problem.of(v, t)).coefficients
    assert np.abs(v.T @ (t - v @ found))[found != 0].max(initial=0) < 1e-9


@pytest.mark.parametrize("solver", [omp, nonnegative_omp, best_subset])
def test_one_of_two_that_coincide_is_taken(make: Make, solver: Solver) -> None:
    v, t = make("coinciding atoms")
    found = solver(Problem.of(v, t))
    assert found.residual_squared < 1e-12 * (t @ t)
    assert np.count_nonzero(found.coefficients) <= 3
    assert np.count_nonzero(found.coefficients[[0, 4]]) == 1


@pytest.mark.parametrize("solver", [omp, cosamp, best_subset])
def test_a_sparse_mixture_is_found_and_what_is_subtracted_is_not_named(solver: Solver) -> None:
    v, _ = random(300, 20, 11)
    truth = np.zeros(20)
    truth[[3, 7, 12]] = [0.5, 1.0, -0.7]
    found = solver(Problem.of(v, v @ truth))
    np.testing.assert_allclose(found.coefficients, truth, atol=1e-10)
    assert np.flatnonzero(found.named).tolist() == [3, 7]


def test_nonnegative_omp_is_omp_where_all_is_positive(make: Make) -> None:
    v, t = make("mixture")
    plain, positive = (solver(Problem.of(v, t)) for solver in (omp, nonnegative_omp))
    assert (plain.coefficients >= 0).all()
    np.testing.assert_allclose(positive.coefficients, plain.coefficients, atol=1e-10)
    assert positive.steps == plain.steps > 1


def test_nonnegative_omp_step_by_step(case: Case) -> None:
    """The same pursuit, written on the expanded vectors."""
    name, v, t = case
    v, t = unit(v, t)
    chosen: list[int] = []
    fitted, residual = np.zeros(v.shape[1]), t
    while len(chosen) < v.shape[1]:
        products = np.delete(np.maximum(v.T @ residual, 0), chosen)
        left = [atom for atom in range(v.shape[1]) if atom not in chosen]
        if products.max() <= 1e-12:
            break
        trial = [*chosen, left[int(np.argmax(products))]]
        coefficients, distance = scipy_nnls(v[:, trial], t)
        if residual @ residual - distance**2 < GAIN:
            break
        chosen, residual = trial, t - v[:, trial] @ coefficients
        fitted = np.zeros(v.shape[1])
        fitted[chosen] = coefficients
    found = nonnegative_omp(Problem.of(v, t))
    assert found.residual_squared == pytest.approx(residual @ residual, abs=1e-10)
    if name != "coinciding atoms":
        np.testing.assert_allclose(found.coefficients, fitted, atol=1e-8)


def test_nonnegative_omp_takes_nothing_that_points_away(make: Make) -> None:
    found = nonnegative_omp(Problem.of(*make("negative correlation")))
    assert not found.coefficients.any()
    assert found.stopped == "no atom left goes the way of the residual"
    assert omp(Problem.of(*make("negative correlation"))).coefficients.any()


def test_best_subset_against_every_subset(case: Case) -> None:
    _, v, t = case
    if v.shape[1] > 8:
        v = v[:, :8]
    v, t = unit(v, t)
    n = v.shape[1]
    every = [[atom for atom in range(n) if code >> atom & 1] for code in range(2**n)]
    errors = [error(v, t, support) for support in every]
    np.testing.assert_allclose(subset_errors(Problem.of(v, t)), errors, atol=1e-7)
    found = best_subset(Problem.of(v, t))
    least = min(value + GAIN * len(support) for value, support in zip(errors, every, strict=True))
    assert cost(Problem.of(v, t), found.coefficients) == pytest.approx(least, abs=1e-8)
    assert found.steps == 2**n


@pytest.mark.parametrize("name", APPROXIMATIONS)
def test_no_approximation_is_better_than_the_exact_one(case: Case, name: str) -> None:
    _, v, t = case
    problem = Problem.of(v, t)
    assert cost(problem, best_subset(problem).coefficients) <= cost(problem, APPROXIMATIONS[name](problem).coefficients) + 1e-9


@pytest.mark.parametrize("name", APPROXIMATIONS)
def test_orthogonal_atoms_are_where_the_approximations_are_exact(make: Make, name: str) -> None:
    v, t = make("orthogonal")
    t = t + v @ np.array([1.0, 0.5, 0.1, 0.4, 0.01, -0.2])
    exact = best_subset(Problem.of(v, t)).coefficients
    assert 1 < np.count_nonzero(exact) < 6
    np.testing.assert_allclose(APPROXIMATIONS[name](Problem.of(v, t)).coefficients, exact, atol=1e-9)


def test_twenty_atoms_take_seconds_and_twenty_one_are_refused() -> None:
    v, _ = random(60, LARGEST + 1, 13)
    t = v[:, :4].sum(1)
    started = time.process_time()
    found = best_subset(Problem.of(v[:, :LARGEST], t))
    assert np.flatnonzero(found.named).tolist() == [0, 1, 2, 3]
    assert time.process_time() - started < 5
    with pytest.raises(BadInput, match=r"expected at most 20 atoms.*found 21.*choose omp"):
        best_subset(Problem.of(v, t))


def test_iterative_hard_thresholding_is_the_plain_iteration(make: Make) -> None:
    """Ten thousand steps on the expanded vectors, at the level that the rule chose, lead to where ours jumped."""
    v, t = unit(*make("mixture"))
    step = 1 / np.linalg.norm(v, 2) ** 2
    levels = set()
    for gain in (0.1, 0.01, 0.003, 0.0003):
        found = iterative_hard_thresholding(Problem.of(v, t), gain)
        level = int(np.count_nonzero(found.coefficients))
        levels.add(level)
        x = np.zeros(8)
        for _ in range(10_000):
            moved = x + step * v.T @ (t - v @ x)
            x = np.where(np.abs(moved) >= np.sort(np.abs(moved))[-level], moved, 0.0)
        np.testing.assert_allclose(found.coefficients, x, atol=1e-9)
        assert found.violation is not None
        assert found.violation < 1e-10
    assert len(levels) > 1


@pytest.mark.parametrize("seed", [17, 99, 129, 132])
def test_iterative_hard_thresholding_ends_at_a_fixed_point(seed: int) -> None:
    """Related atoms in few dimensions, found by search: the support rests for a step and changes again; where it rests first is no answer."""
    rng = np.random.default_rng(seed)
    v, t = unit(rng.standard_normal((12, 8)) + rng.standard_normal((12, 1)), rng.standard_normal(12))
    t = unit(v, v @ (rng.random(8) * (rng.random(8) < 0.5)) + 0.3 * t)[1]
    x = iterative_hard_thresholding(Problem.of(v, t), 0.001).coefficients
    moved = x + v.T @ (t - v @ x) / np.linalg.norm(v, 2) ** 2
    moved[np.argsort(np.abs(moved))[: 8 - np.count_nonzero(x)]] = 0
    np.testing.assert_allclose(moved, x, atol=1e-9)


@pytest.mark.parametrize("name", ["random", "mixture", "more atoms than weights", "opposite atoms"])
def test_cosamp_step_by_step(make: Make, name: str) -> None:
    """The authors' algorithm at the level that the rule chose, on the expanded vectors."""
    v, t = unit(*make(name))
    found = cosamp(Problem.of(v, t), 0.001).coefficients
    level = int(np.count_nonzero(found))
    x, distance = np.zeros(v.shape[1]), 1.0
    while True:
        proxy = np.abs(v.T @ (t - v @ x))
        joined = sorted({*np.argsort(-proxy, kind="stable")[: 2 * level].tolist(), *np.flatnonzero(x).tolist()})
        wide = np.linalg.lstsq(v[:, joined], t, rcond=None)[0]
        kept = [joined[place] for place in sorted(np.argsort(-np.abs(wide), kind="stable")[:level])]
        trial = np.zeros(v.shape[1])
        trial[kept] = np.linalg.lstsq(v[:, kept], t, rcond=None)[0]
        if (new := float(np.sum((t - v @ trial) ** 2))) >= distance - 1e-12:
            break
        x, distance = trial, new
    np.testing.assert_allclose(found, x, atol=1e-8)


def test_cosamp_can_drop_what_omp_took_first() -> None:
    """Two atoms and their sum, slightly off: the sum is the best single atom and no part of the best pair."""
    v, noise = random(400, 6, 14)
    v[:, 0] = v[:, 1] + v[:, 2] + 0.3 * noise
    problem = Problem.of(v, v[:, 1] + v[:, 2])
    assert np.flatnonzero(omp(problem).coefficients).tolist()[0] == 0
    assert np.flatnonzero(cosamp(problem).named).tolist() == [1, 2]
    np.testing.assert_allclose(cosamp(problem).coefficients, best_subset(problem).coefficients, atol=1e-10)


def test_the_level_has_the_least_cost() -> None:
    """Given best subsets of each size, the level rule picks the penalised optimum, and does not look beyond what can win."""
    v, t = unit(*random(30, 8, 15))
    t = (t + 2 * v[:, :3].sum(1)) / np.linalg.norm(t + 2 * v[:, :3].sum(1))
    problem = Problem.of(v, t)
    asked: list[int] = []

    def at(level: int) -> tuple[Array, int]:
        asked.append(level)
        support = list(min(itertools.combinations(range(8), level), key=lambda atoms: error(v, t, list(atoms))))
        shares = np.zeros(8)
        shares[support] = np.linalg.lstsq(v[:, support], t, rcond=None)[0]
        return shares, 1

    for gain in (0.3, 0.05, 1e-4):
        asked.clear()
        shares, level, steps = best_level(problem, at, gain)
        assert level == np.count_nonzero(shares)
        np.testing.assert_allclose(shares, best_subset(problem, gain).coefficients, atol=1e-9)
        assert steps == len(asked)
    assert largest(np.array([0.0, -3, 2, 3, 0]), 2) == [1, 3]
    assert largest(np.array([0.0, -3, 0]), 2) == [1]
