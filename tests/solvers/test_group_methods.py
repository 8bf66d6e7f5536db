"""Group lasso and sparse group lasso over blocks of weights."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray

from unmerge.solvers import SOLVERS, Blocks, Problem
from unmerge.solvers.group_lasso import group_lasso
from unmerge.solvers.lasso import lasso
from unmerge.solvers.sparse_group_lasso import sparse_group_lasso

Array = NDArray[np.float64]

SIZES = (30, 50, 20)


def blocked(v: Array, t: Array, sizes: tuple[int, ...] = SIZES) -> Problem:
    """A problem with one partition, "layers": consecutive rows."""
    edges = np.cumsum((0, *sizes))
    parts = [Problem.of(v[start:end], t[start:end]) for start, end in itertools.pairwise(edges)]
    blocks = Blocks(
        tuple(f"layer {place}" for place in range(len(parts))),
        np.stack([part.gram for part in parts]),
        np.stack([part.correlation for part in parts]),
        np.array([part.norm_squared for part in parts]),
    )
    whole = Problem.of(v, t)
    return Problem(whole.gram, whole.correlation, whole.norm_squared, {"layers": blocks})


def mixture(seed: int = 0, n: int = 6, cosine: float = 0.3) -> tuple[Array, Array]:
    """Related atoms; two are in the target in all blocks, one in the first block only; the last leaves the second block as it is."""
    rng = np.random.default_rng(seed)
    v = rng.standard_normal((sum(SIZES), n)) + np.sqrt(cosine / (1 - cosine)) * rng.standard_normal((sum(SIZES), 1))
    v[SIZES[0] : SIZES[0] + SIZES[1], -1] = 0
    t = v[:, 0] + 0.6 * v[:, 2] + 0.3 * rng.standard_normal(len(v))
    t[: SIZES[0]] += 0.8 * v[: SIZES[0], 3]
    return v * np.logspace(-1, 1, n), t


def expanded(v: Array, t: Array) -> tuple[Array, Array, Array]:
    """(weights, m n) every atom's part in every block, of length 1, the unit target, and (m, n) the parts' norms."""
    edges = np.cumsum((0, *SIZES))
    parts = np.zeros((len(v), len(SIZES), v.shape[1]))
    for block, (start, end) in enumerate(itertools.pairwise(edges)):
        parts[start:end, block] = v[start:end]
    norms = np.linalg.norm(parts, axis=0)
    return (parts / np.where(norms > 0, norms, 1.0)).reshape(len(v), -1), t / np.linalg.norm(t), norms


def soft(x: Array, by: Array) -> Array:
    return np.asarray(np.sign(x) * np.maximum(np.abs(x) - by, 0))


def proximal_gradient(design: Array, t: Array, n: int, group: float, single: Array) -> Array:
    """The same problem by accelerated proximal gradient steps on the expanded vectors (Beck and Teboulle, 2009)."""
    step = 1 / np.linalg.norm(design, 2) ** 2
    x = ahead = np.zeros(design.shape[1])
    pace = 1.0
    for _ in range(20_000):
        moved = soft((ahead + step * design.T @ (t - design @ ahead)).reshape(-1, n), step * single)
        lengths = np.linalg.norm(moved, axis=0)
        new = (moved * np.maximum(1 - step * group / np.where(lengths > 0, lengths, 1.0), 0)).reshape(-1)
        faster = (1 + np.sqrt(1 + 4 * pace**2)) / 2
        ahead, x, pace = new + (pace - 1) / faster * (new - x), new, faster
    return x.reshape(-1, n)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("penalty", [0.1, 0.02])
def test_against_proximal_gradient_on_the_expanded_vectors(alpha: float, penalty: float) -> None:
    v, t = mixture()
    design, goal, norms = expanded(v, t)
    group, single = penalty * (1 - alpha), penalty * alpha / np.sqrt((norms > 0).sum(0))
    theirs = proximal_gradient(design, goal, v.shape[1], group, single)
    found = sparse_group_lasso(blocked(v, t), "layers", penalty, alpha)
    assert found.by_block is not None
    np.testing.assert_allclose(found.by_block * norms / np.linalg.norm(t), theirs, atol=1e-8)
    assert found.violation is not None
    assert found.violation < 1e-9


@pytest.mark.parametrize("seed", range(5))
def test_optimality_group_by_group(seed: int) -> None:
    """Yuan and Lin's conditions: products with the residual are the penalty times the direction of the group, or shorter than it."""
    v, t = mixture(seed, n=10)
    design, goal, norms = expanded(v, t)
    found = group_lasso(blocked(v, t), "layers")
    assert found.by_block is not None
    z = found.by_block * norms / np.linalg.norm(t)
    products = (design.T @ (goal - design @ z.reshape(-1))).reshape(z.shape)
    lengths = np.linalg.norm(z, axis=0)
    on = lengths > 0
    assert on.any()
    assert not on.all()
    np.testing.assert_allclose(products[:, on], 0.1 * z[:, on] / lengths[on], atol=1e-9)
    assert (np.linalg.norm(products[:, ~on], axis=0) <= 0.1 + 1e-9).all()


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_one_block_is_the_lasso(alpha: float) -> None:
    v, t = mixture()
    problem = Problem.of(v, t)
    for penalty in (0.1, 0.01):
        expected = lasso(problem, penalty)
        for found in (sparse_group_lasso(problem, "layers", penalty, alpha), sparse_group_lasso(blocked(v, t, (100,)), "layers", penalty, alpha)):
            np.testing.assert_allclose(found.coefficients, expected.coefficients, atol=1e-8)
            assert (found.named == expected.named).all()


def test_l1_alone_is_a_lasso_in_each_block() -> None:
    v, t = (values[..., :-1] if values.ndim == 2 else values for values in mixture())
    found = sparse_group_lasso(blocked(v, t), "layers", 0.1, 1.0).by_block
    assert found is not None
    edges = np.cumsum((0, *SIZES))
    for block, (start, end) in enumerate(itertools.pairwise(edges)):
        part = Problem.of(v[start:end], t[start:end])
        # the penalty is in units of the whole target
        alone = lasso(part, 0.1 / np.sqrt(3) * float(np.linalg.norm(t)) / part.target_scale)
        np.testing.assert_allclose(found[block], alone.coefficients, atol=1e-8)


def test_groups_enter_as_a_whole_and_sparse_groups_need_not() -> None:
    v, t = mixture()
    norms = expanded(v, t)[2]
    whole, sparse = (solver(blocked(v, t), "layers").by_block for solver in (group_lasso, sparse_group_lasso))
    assert whole is not None
    assert sparse is not None
    on = np.abs(whole).any(0)
    assert on[[0, 2, 3]].all()
    assert ((whole != 0) == (on & (norms > 0))).all()
    assert sparse[0, 3] != 0
    assert (sparse[:, 3] == 0).any(), "this atom is in the first block only"


def test_one_coefficient_stands_for_a_group() -> None:
    """The mean weighted by squared norms is the projection of what the atom contributes over all blocks on the atom."""
    v, t = mixture()
    problem = blocked(v, t)
    by_block = np.random.default_rng(1).standard_normal((3, v.shape[1]))
    combined = problem.blocks("layers").combined(by_block)
    rows = np.repeat(np.arange(3), SIZES)
    for atom in range(v.shape[1]):
        contribution = by_block[rows, atom] * v[:, atom]
        assert combined[atom] == pytest.approx(contribution @ v[:, atom] / (v[:, atom] @ v[:, atom]))
    np.testing.assert_allclose(problem.blocks("layers").combined(np.full((3, v.shape[1]), 0.7)), 0.7)


@pytest.mark.parametrize("name", [name for name in SOLVERS if name.endswith("_layers")])
def test_units_and_extremes(name: str) -> None:
    v, t = mixture()
    plain = SOLVERS[name](blocked(v, t))
    assert plain.named[[0, 2]].all()
    lengths = np.logspace(-5, 4, v.shape[1])
    other = SOLVERS[name](blocked(v * lengths, t * 1e6))
    np.testing.assert_allclose(other.coefficients * lengths / 1e6, plain.coefficients, rtol=1e-6, atol=1e-10)
    assert not SOLVERS[name](blocked(v, np.zeros_like(t))).named.any()
    assert SOLVERS[name](blocked(v[:, :0], t)).coefficients.shape == (0,)
    twins = SOLVERS[name](blocked(np.column_stack([v, v[:, 0]]), t))
    assert twins.coefficients[[0, -1]].sum() == pytest.approx(plain.coefficients[0], rel=1e-5)
    more = blocked(np.vstack([v, np.zeros((5, v.shape[1]))]), np.append(t, np.zeros(5)), (*SIZES, 5))
    np.testing.assert_allclose(SOLVERS[name](more).coefficients, plain.coefficients, err_msg="a block that no atom changes counts for nothing")
    in_one_block = np.where(np.arange(len(t)) < SIZES[0], t, 0)
    assert np.isfinite(SOLVERS[name](blocked(v, in_one_block)).coefficients).all()
