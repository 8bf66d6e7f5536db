"""A closer look at what the components leave: better than least squares under noise, and no more is projected off than it may be."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from unmerge.certificate.refined import Looked, Refined, refined
from unmerge.certificate.systems import solve
from unmerge.vectors import Dense, Held, LowRank, gram

TRUTH = np.array([0.8, 0.6])
NAMES, ROWS, COLUMNS, RANK = ["first", "second", "third"], 60, 90, 4


def parts(count: int) -> list[dict[str, LowRank]]:
    """Changes of rank 4 that share one direction pair in every tensor, so that least squares blames one for another."""
    torch.manual_seed(0)
    made: list[dict[str, LowRank]] = [{} for _ in range(count)]
    for name in NAMES:
        b, a = torch.randn(ROWS, 1, dtype=torch.float64), torch.randn(1, COLUMNS, dtype=torch.float64)
        for part in made:
            own = torch.randn(ROWS, RANK - 1, dtype=torch.float64), torch.randn(RANK - 1, COLUMNS, dtype=torch.float64)
            noisy = b + 0.5 * torch.randn_like(b), a + 0.5 * torch.randn_like(a)
            part[name] = LowRank(torch.cat([own[0], noisy[0]], 1), torch.cat([own[1], noisy[1]], 0))
    return made


def looked(noise: Sequence[float], most: Sequence[int]) -> list[Looked]:
    return [Looked(*item) for item in zip(NAMES, noise, most, strict=True)]


def held(known: Sequence[dict[str, LowRank]]) -> list[Held]:
    return [Held(f"atom {place}", part) for place, part in enumerate(known)]


def total(known: Sequence[dict[str, LowRank]], unknown: Sequence[dict[str, LowRank]], name: str) -> Tensor:
    weighted = [*zip(TRUTH.tolist(), known, strict=True), *((0.7, part) for part in unknown)]
    return torch.stack([weight * part[name].dense() for weight, part in weighted]).sum(0)


def least_squares(atoms: Sequence[Held], target: Held) -> np.ndarray:
    products = gram(atoms, target)
    return solve(products.gram.sum(0), products.correlation.sum(0))


def error(coefficients: np.ndarray) -> float:
    return float(np.abs(coefficients / TRUTH - 1).max())


@pytest.mark.parametrize("noise", [0.1, 0.3])
def test_better_than_least_squares_beside_something_unknown(noise: float) -> None:
    one, two, *unknown = parts(4)
    torch.manual_seed(1)
    changes = {name: total([one, two], unknown, name) + noise * torch.randn(ROWS, COLUMNS, dtype=torch.float64) for name in NAMES}
    atoms, target = held([one, two]), Held("target", {name: Dense(values) for name, values in changes.items()})
    squares = least_squares(atoms, target)
    guess = TRUTH * [1.02, 0.98]
    found = refined(atoms, target, looked([noise] * 3, [0] * 3), guess)
    assert error(squares) > 0.02
    assert error(found.coefficients) < min(error(squares), error(guess)) / 2
    assert found.ranks.tolist() == [2 * RANK] * 3
    assert ((found.kept > 0.4) & (found.kept < 1)).all()


def test_noisy_tensors_count_less() -> None:
    """The normal equations are over the noise: a tensor with ten times the noise says a hundredth."""
    one, two = parts(2)
    noise = [0.01, 0.1, 0.1]
    torch.manual_seed(2)
    changes = {
        name: Dense(total([one, two], [], name) + s * torch.randn(ROWS, COLUMNS, dtype=torch.float64)) for name, s in zip(NAMES, noise, strict=True)
    }
    found = refined(held([one, two]), Held("target", changes), looked(noise, [0] * 3), TRUTH)
    squares = np.array([[(part[name].dense() ** 2).sum() for part in (one, two)] for name in NAMES])
    np.testing.assert_allclose(np.einsum("mii->mi", found.gram), squares / np.square(noise)[:, None])
    assert found.ranks.tolist() == [0, 0, 0]
    np.testing.assert_allclose(found.kept, 1)


def without_noise(dense: bool) -> tuple[list[Held], Held, list[dict[str, LowRank]]]:
    """Two atoms beside an unknown one."""
    one, two, unknown = parts(3)
    target: dict[str, LowRank | Dense] = {}
    for name in NAMES:
        whole = [(0.8, one[name]), (0.6, two[name]), (0.7, unknown[name])]
        low = LowRank(torch.cat([c * delta.b for c, delta in whole], 1), torch.cat([delta.a for _, delta in whole], 0))
        target[name] = Dense(low.dense()) if dense else low
    return held([one, two]), Held("target", target), [one, two, unknown]


@pytest.mark.parametrize("dense", [False, True])
def test_what_is_kept_against_dense_projections(dense: bool) -> None:
    """From the truth, what is left is the unknown component itself: its column and row space are projected off."""
    atoms, target, (one, two, unknown) = without_noise(dense)
    found = refined(atoms, target, looked([0.0] * 3, [RANK] * 3), TRUTH)
    kept, whole = np.zeros((3, 2)), np.zeros((3, 2))
    for row, name in enumerate(NAMES):
        off_left = torch.eye(ROWS, dtype=torch.float64) - unknown[name].b @ torch.linalg.pinv(unknown[name].b)
        off_right = torch.eye(COLUMNS, dtype=torch.float64) - torch.linalg.pinv(unknown[name].a) @ unknown[name].a
        for place, part in enumerate((one, two)):
            kept[row, place] = float(((off_left @ part[name].dense() @ off_right) ** 2).sum())
            whole[row, place] = float((part[name].dense() ** 2).sum())
    np.testing.assert_allclose(np.einsum("mii->mi", found.gram), kept, rtol=1e-6)
    np.testing.assert_allclose(found.kept, kept.sum(0) / whole.sum(0), rtol=1e-6)
    np.testing.assert_allclose(found.coefficients, np.tile(TRUTH, (3, 1)), rtol=1e-9)
    assert found.ranks.tolist() == [RANK] * 3


def truncated(most: int) -> Refined:
    """From a good guess, on a target cut to the two thirds of its rank that are largest."""
    atoms, target, _ = without_noise(dense=True)
    cut = {}
    for name in NAMES:
        left, values, right = torch.linalg.svd(target.delta(name).dense(), full_matrices=False)
        cut[name] = LowRank(left[:, : 2 * RANK] * values[: 2 * RANK], right[: 2 * RANK])
    return refined(atoms, Held("target", cut), looked([0.0] * 3, [most] * 3), TRUTH * [1.02, 0.98])


def test_no_more_is_projected_off_a_target_without_noise_than_may_be_unknown() -> None:
    """What the atoms leave holds also what the truncated target lacks of them: without a limit nothing is kept."""
    capped, free = truncated(RANK), truncated(10 * RANK)
    assert capped.ranks.tolist() == [RANK] * 3
    assert free.ranks.tolist() == [3 * RANK] * 3
    assert capped.kept.min() > 0.5
    assert free.kept.max() < 1e-9
    assert error(capped.coefficients) < 0.2
    assert error(free.coefficients) > 0.5


def test_atoms_that_leave_a_tensor_alone() -> None:
    """A tensor that one atom does not change says nothing of it, and the other is measured there."""
    one, two = parts(2)
    changes = {name: Dense(total([one, two], [], name)) for name in NAMES}
    changes["third"] = Dense(TRUTH[0] * one["third"].dense())
    atoms = [Held("one", one), Held("two", {name: two[name] for name in NAMES[:2]})]
    found = refined(atoms, Held("target", changes), looked([0.0] * 3, [0] * 3), TRUTH)
    assert found.gram[2, 1].tolist() == [0, 0]
    assert found.gram[2, 0, 0] == pytest.approx(float((one["third"].dense() ** 2).sum()))
    np.testing.assert_allclose(found.coefficients, np.tile(TRUTH, (3, 1)), rtol=1e-9)
    assert found.ranks.tolist() == [0, 0, 0]
