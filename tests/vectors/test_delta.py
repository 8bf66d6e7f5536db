"""A compact change against its dense matrix."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from unmerge.vectors import Delta, Dense, Held, LowRank, Skipped, norm_squared, singular_values


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def cancelling() -> LowRank:
    """B A - B A as one change of rank 6: zero, from large factors."""
    b, a = random(12, 3, seed=1), random(3, 7, seed=2)
    return LowRank(torch.cat([b, -b], 1), torch.cat([a, a], 0))


CASES: dict[str, Callable[[], Delta]] = {
    "low rank, wide": lambda: LowRank(random(5, 3), random(3, 11, seed=1)),
    "low rank, tall": lambda: LowRank(random(11, 3), random(3, 5, seed=1)),
    "rank one": lambda: LowRank(random(6, 1), random(1, 4, seed=1)),
    "rank above the size": lambda: LowRank(random(4, 9), random(9, 6, seed=1)),
    "rank zero": lambda: LowRank(random(4, 0), random(0, 6)),
    "bf16 factors": lambda: LowRank(random(8, 2, dtype=torch.bfloat16), random(2, 8, seed=1, dtype=torch.bfloat16)),
    "cancelling factors": cancelling,
    "dense matrix": lambda: Dense(random(6, 9)),
    "dense bf16": lambda: Dense(random(6, 9, dtype=torch.bfloat16)),
    "dense f16 whose square overflows f16": lambda: Dense(torch.full((4, 4), 300.0, dtype=torch.float16)),
    "dense transposed view": lambda: Dense(random(6, 9).T),
    "bias": lambda: Dense(random(10)),
    "scalar": lambda: Dense(torch.tensor(-2.5)),
    "convolution": lambda: Dense(random(3, 2, 2, 2)),
}


@pytest.fixture(params=CASES)
def delta(request: pytest.FixtureRequest) -> Delta:
    return CASES[request.param]()


def expanded(delta: Delta) -> torch.Tensor:
    """An independent expansion: in float64, entry by entry for a low-rank change."""
    if isinstance(delta, LowRank):
        return torch.einsum("or,ri->oi", delta.b.double(), delta.a.double())
    return delta.values.double()


def test_shape_and_expansion(delta: Delta) -> None:
    assert delta.shape == tuple(expanded(delta).shape)
    tolerance = 0.02 if delta.dense().dtype == torch.bfloat16 else 1e-5
    torch.testing.assert_close(delta.dense().double(), expanded(delta), rtol=tolerance, atol=tolerance)


def test_norm(delta: Delta) -> None:
    truth = float((expanded(delta) ** 2).sum())
    assert norm_squared(delta) == pytest.approx(truth, rel=1e-12, abs=1e-12)
    assert norm_squared(delta) >= 0


def test_singular_values(delta: Delta) -> None:
    values, matrix = singular_values(delta), expanded(delta)
    truth = torch.linalg.svdvals(matrix.reshape(matrix.shape[0] if matrix.ndim else 1, -1))
    assert values.dtype == torch.float64
    assert bool((values[:-1] >= values[1:]).all())
    padded = torch.zeros_like(truth)
    padded[: len(values)] = values
    torch.testing.assert_close(padded, truth, rtol=1e-10, atol=1e-10)
    assert float((values**2).sum()) == pytest.approx(norm_squared(delta), rel=1e-10, abs=1e-10)


@pytest.mark.parametrize("factor", [2.0, -0.5, 0.0])
def test_scaling(delta: Delta, factor: float) -> None:
    scaled = delta.scaled(factor)
    assert type(scaled) is type(delta)
    assert norm_squared(scaled) == pytest.approx(factor**2 * norm_squared(delta), rel=1e-6, abs=1e-12)
    torch.testing.assert_close(expanded(scaled), factor * expanded(delta), rtol=1e-2, atol=1e-6)


def test_low_rank_singular_values_are_as_many_as_the_rank_allows() -> None:
    assert len(singular_values(LowRank(random(50, 3), random(3, 40, seed=1)))) == 3
    assert math.isclose(float(singular_values(LowRank(torch.eye(5)[:, :1] * 3, torch.eye(4)[:1] * 2))[0]), 6.0)


def test_held_changes_are_a_task_vector() -> None:
    held = Held("mine", {"w": LowRank(random(5, 2), random(2, 7)), "b": Dense(random(5))}, (Skipped("head", "too large"),))
    assert held.shapes == {"w": (5, 7), "b": (5,)}
    assert held.delta("b") is held.deltas["b"]
    assert held.skipped[0].reason == "too large"
