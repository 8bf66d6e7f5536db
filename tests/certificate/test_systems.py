"""Normal equations tensor by tensor, against dense least squares and a loop that leaves one tensor out."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from unmerge.certificate.systems import CONFIDENCE, jackknife_interval, own_answer, solve

Matrix = np.ndarray


def blocks(count: int, coefficients: Matrix, noise: float, seed: int) -> tuple[Matrix, Matrix, list[Matrix], list[Matrix]]:
    """(gram, correlation) of tensors of 40 weights, and what they are made of."""
    rng = np.random.default_rng(seed)
    atoms = [rng.standard_normal((40, len(coefficients))) for _ in range(count)]
    targets = [atom @ coefficients + noise * rng.standard_normal(40) for atom in atoms]
    gram = np.array([atom.T @ atom for atom in atoms])
    correlation = np.array([atom.T @ target for atom, target in zip(atoms, targets, strict=True)])
    return gram, correlation, atoms, targets


@pytest.mark.parametrize("scales", [(1.0, 1.0, 1.0), (1e-6, 1.0, 1e5)])
def test_solve_is_least_squares_at_any_scale(scales: tuple[float, ...]) -> None:
    rng = np.random.default_rng(0)
    atoms, target = rng.standard_normal((30, 3)) * scales, rng.standard_normal(30)
    expected = np.linalg.lstsq(atoms, target, rcond=None)[0]
    np.testing.assert_allclose(solve(atoms.T @ atoms, atoms.T @ target), expected, rtol=1e-9)


def test_solve_of_equal_and_empty_atoms() -> None:
    """Two equal atoms share the coefficient, one that is zero gets none."""
    atom = np.random.default_rng(0).standard_normal(20)
    atoms = np.stack([atom, atom, np.zeros(20)], 1)
    np.testing.assert_allclose(solve(atoms.T @ atoms, atoms.T @ (3 * atom)), [1.5, 1.5, 0.0], atol=1e-9)


def test_own_answer_is_silent_about_atoms_that_are_not_there() -> None:
    gram, correlation, (atom,), (target,) = blocks(1, np.array([0.5, 0.0, -0.7]), 0.1, 1)
    there = np.array([1.0, 0.0, 1.0])
    answer = own_answer(gram[0] * np.outer(there, there), correlation[0] * there)
    np.testing.assert_allclose(answer[[0, 2]], np.linalg.lstsq(atom[:, [0, 2]], target, rcond=None)[0])
    assert np.isnan(answer[1])
    assert np.isnan(own_answer(np.zeros((2, 2)), np.zeros(2))).all()
    assert own_answer(np.zeros((0, 0)), np.zeros(0)).shape == (0,)


def test_jackknife_against_a_loop() -> None:
    gram, correlation, atoms, targets = blocks(7, np.array([0.8, 0.3]), 0.5, 2)
    coefficients = solve(gram.sum(0), correlation.sum(0))
    pseudo = []
    for left_out in range(7):
        kept = [place for place in range(7) if place != left_out]
        pseudo.append(np.linalg.lstsq(np.concatenate([atoms[p] for p in kept]), np.concatenate([targets[p] for p in kept]), rcond=None)[0])
    error = np.sqrt(6 / 7 * np.sum((np.array(pseudo) - np.mean(pseudo, 0)) ** 2, 0))
    reach = stats.t(6).interval(CONFIDENCE)[1] * error
    expected = np.stack([coefficients - reach, coefficients + reach], 1)
    np.testing.assert_allclose(jackknife_interval(gram, correlation, coefficients), expected, rtol=1e-9)


def test_one_tensor_has_no_spread() -> None:
    gram, correlation, *_ = blocks(1, np.array([0.8, 0.3]), 0.5, 2)
    interval = jackknife_interval(gram, correlation, solve(gram[0], correlation[0]))
    assert (interval == np.array([[-np.inf, np.inf]] * 2)).all()


def test_intervals_hold_as_often_as_they_say() -> None:
    truth, draws = np.array([0.8, 0.3]), 400
    held = np.zeros(2)
    for seed in range(draws):
        gram, correlation, *_ = blocks(8, truth, 0.5, seed)
        low, high = jackknife_interval(gram, correlation, solve(gram.sum(0), correlation.sum(0))).T
        held += (low <= truth) & (truth <= high)
    low, high = stats.binom.interval(0.999, draws, CONFIDENCE)
    assert (held >= low).all()
    assert (held <= high + 0.04 * draws).all()  # the jackknife errs on the wide side
