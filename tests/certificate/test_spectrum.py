"""Signal and noise of a spectrum, against matrices whose parts are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from unmerge.certificate.spectrum import expected_containment, signal_of
from unmerge.vectors import Dense, LowRank


def planted(shape: tuple[int, int], values: list[float], noise: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    left = torch.linalg.qr(torch.randn(shape[0], len(values), dtype=torch.float64))[0]
    right = torch.linalg.qr(torch.randn(shape[1], len(values), dtype=torch.float64))[0]
    return (left * torch.tensor(values)) @ right.T + noise * torch.randn(shape, dtype=torch.float64), left, right


@pytest.mark.parametrize("shape", [(128, 128), (64, 192), (192, 64)])
def test_rank_and_noise(shape: tuple[int, int]) -> None:
    matrix, *_ = planted(shape, [9.0, 7.0, 6.0, 5.0], 0.1)
    signal = signal_of(Dense(matrix))
    assert signal.rank == 4
    assert signal.noise == pytest.approx(0.1, rel=0.03)


def test_noise_alone_has_no_signal() -> None:
    matrix, *_ = planted((128, 256), [0.0], 1.0)
    assert signal_of(Dense(matrix)).rank == 0


def test_low_rank_has_no_noise() -> None:
    torch.manual_seed(0)
    delta = LowRank(torch.randn(40, 5), torch.randn(5, 60))
    dense = signal_of(Dense(delta.dense()))
    for signal in (signal_of(delta), dense):
        assert (signal.rank, signal.noise) == (5, 0.0)
    torch.testing.assert_close(signal_of(delta).values, dense.values, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(300, 300), (150, 450), (450, 150)])
@pytest.mark.parametrize("strength", [2.2, 3.0, 5.0])
def test_expected_containment_is_what_comes(shape: tuple[int, int], strength: float) -> None:
    """strength: in units of the noise times the square root of the longer side."""
    noise = 0.05
    value = strength * noise * np.sqrt(max(shape))
    matrix, left, right = planted(shape, [value], noise)
    signal = signal_of(Dense(matrix))
    seen = float(((signal.left.T @ left) ** 2).sum() * ((signal.right.T @ right) ** 2).sum())
    assert seen == pytest.approx(float(expected_containment(np.array([value]), noise, 0.0, shape)[0]), abs=0.06)


def test_nothing_is_expected_below_the_transition() -> None:
    value = 0.9 * 0.05 * np.sqrt(300)
    assert expected_containment(np.array([value]), 0.05, 0.0, (300, 300))[0] == 0.0


def test_below_the_cut_of_a_low_rank_target_less_is_expected() -> None:
    """A truncated decomposition leaves nothing below its last singular value."""
    torch.manual_seed(0)
    signal = signal_of(LowRank(torch.randn(40, 5), torch.randn(5, 60)))
    last = float(signal.values[-1])
    assert signal.cut == last
    np.testing.assert_allclose(expected_containment(np.array([2 * last, last, last / 2]), signal.noise, signal.cut, signal.shape), [1, 1, 0.25])
