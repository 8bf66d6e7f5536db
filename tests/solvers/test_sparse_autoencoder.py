"""The amortised encoder against the problem that it is trained to solve."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from numpy.typing import NDArray

from unmerge.solvers import Problem, Solution
from unmerge.solvers.nonnegative_lasso import nonnegative_lasso
from unmerge.solvers.sparse_autoencoder import sparse_autoencoder

Array = NDArray[np.float64]

#: the module; the package's attribute of that name is the function
room = sys.modules["unmerge.solvers.sparse_autoencoder"]


def mixtures(n: int, cosine: float, count: int = 30) -> list[Problem]:
    """Targets of two to five related atoms, every second one with as much of an eleventh atom that the dictionary does not have."""
    rng = np.random.default_rng(n)
    v = rng.standard_normal((2000, n + 1)) + np.sqrt(cosine / (1 - cosine)) * rng.standard_normal((2000, 1))
    problems = []
    for trial in range(count):
        c = np.zeros(n + 1)
        c[rng.choice(n, rng.integers(2, 6), replace=False)] = 1
        c *= rng.uniform(0.3, 1.0, n + 1)
        c[n] = trial % 2 * 0.7
        problems.append(Problem.of(v[:, :n], v @ c))
    return problems


def objective(problem: Problem, solution: Solution) -> float:
    shares = problem.shares(solution.coefficients)
    return 0.5 * problem.share_error(shares) + 0.1 * float(np.abs(shares).sum())


@pytest.mark.parametrize(("n", "cosine", "bar"), [(8, 0.0, 1e-4), (8, 0.15, 1e-3), (10, 0.4, 2e-3)])
def test_the_amortisation_gap_is_small_and_training_closes_it(monkeypatch: pytest.MonkeyPatch, n: int, cosine: float, bar: float) -> None:
    problems = mixtures(n, cosine)
    exact = np.mean([objective(problem, nonnegative_lasso(problem)) for problem in problems])
    trained = np.mean([objective(problem, sparse_autoencoder(problem)) for problem in problems])
    monkeypatch.setattr(room, "_STEPS", 0)
    room._encoder.cache_clear()
    untrained = np.mean([objective(problem, sparse_autoencoder(problem)) for problem in problems])
    room._encoder.cache_clear()
    assert 0 <= trained - exact < bar
    assert trained - exact < 0.7 * (untrained - exact)


def test_violation_is_the_distance_from_the_lasso() -> None:
    problem = mixtures(8, 0.15)[0]
    found, exact = sparse_autoencoder(problem), nonnegative_lasso(problem)
    assert found.violation is not None
    assert 0 < found.violation < 0.1
    np.testing.assert_allclose(problem.shares(found.coefficients), problem.shares(exact.coefficients), atol=0.1)


def test_the_same_dictionary_gives_the_same_encoder() -> None:
    problem = mixtures(8, 0.15)[0]
    first = sparse_autoencoder(problem).coefficients
    room._encoder.cache_clear()
    np.testing.assert_array_equal(first, sparse_autoencoder(problem).coefficients)
    before = room._encoder.cache_info().misses
    for other in mixtures(8, 0.15):
        sparse_autoencoder(other)
    assert room._encoder.cache_info().misses == before, "trained once for a dictionary"
