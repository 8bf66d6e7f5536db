"""Leading triples against the full decomposition, and the signal that they tell, on spiked matrices of several aspects."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from unmerge.certificate import spectrum, unknown
from unmerge.certificate.range_finder import Leading
from unmerge.certificate.spectrum import signal_of_wide, signal_rank
from unmerge.certificate.unknown import signal_rank_by_flips

SHAPES = [(700, 700), (420, 900), (900, 420)]
RANK = 20


def spiked(shape: tuple[int, int], noise: float, seed: int = 0) -> Tensor:
    """RANK directions whose singular values fall by .85, the last still well above the edge; noise of variance 1 has its edge at 1."""
    generator = torch.Generator().manual_seed(seed)
    left, right = (torch.linalg.qr(torch.randn(side, RANK, generator=generator))[0] for side in shape)
    edge = math.sqrt(shape[0]) + math.sqrt(shape[1])
    values = 40 * 0.85 ** torch.arange(RANK)
    return (left * values) @ right.T + noise / edge * torch.randn(shape, generator=generator)


@pytest.mark.parametrize("shape", SHAPES)
def test_values_are_within_the_stated_residual(shape: tuple[int, int]) -> None:
    matrix = spiked(shape, 1.0)
    found, exact = Leading.of(matrix), torch.linalg.svdvals(matrix.double())
    error = (found.values[:RANK] - exact[:RANK]).abs()
    assert bool((error <= found.residuals()[:RANK] + 1e-5).all())
    assert float((error / exact[:RANK]).max()) < 1e-4
    # the bound means something: it is a small part of what is kept
    assert float((found.residuals() / found.values)[: RANK // 2].max()) < 0.02


@pytest.mark.parametrize("shape", SHAPES)
def test_subspaces_are_within_the_stated_angle(shape: tuple[int, int]) -> None:
    matrix = spiked(shape, 1.0)
    found = Leading.of(matrix)
    left, values, right = torch.linalg.svd(matrix.double(), full_matrices=False)
    half = RANK // 2
    bound = float(torch.linalg.vector_norm(found.residuals()[:half]) / (values[half - 1] - values[half]))
    for ours, theirs in ((found.left, left), (found.right, right.T)):
        angle = torch.linalg.matrix_norm(ours[:, :half] - theirs[:, :half] @ (theirs[:, :half].T @ ours[:, :half]), 2)
        assert float(angle) <= bound + 1e-5
        assert float((ours.T @ ours - torch.eye(len(found.values))).abs().max()) < 1e-4


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("noise", [0.5, 2.0])
def test_signal_and_noise_are_those_of_the_full_decomposition(shape: tuple[int, int], noise: float) -> None:
    matrix = spiked(shape, noise)
    rank, deviation, edge = signal_rank(torch.linalg.svdvals(matrix.double()).numpy(), shape)
    signal, _ = signal_of_wide(matrix)
    assert abs(signal.rank - rank) <= 1
    assert signal.noise == pytest.approx(noise / (math.sqrt(shape[0]) + math.sqrt(shape[1])), rel=0.02)
    assert signal.noise == pytest.approx(deviation, rel=0.04)
    assert signal.edge == pytest.approx(edge, rel=0.04)


def test_more_are_sought_where_the_signal_is_wide() -> None:
    torch.manual_seed(0)
    matrix = torch.randn(700, 90) @ torch.randn(90, 800) + 0.1 * torch.randn(700, 800)
    signal, found = signal_of_wide(matrix, expected=5)
    assert signal.rank == 90
    assert found.covers(90)


def test_a_matrix_of_low_rank_has_no_noise() -> None:
    torch.manual_seed(0)
    signal, _ = signal_of_wide(torch.randn(600, 30) @ torch.randn(30, 900))
    assert (signal.rank, signal.noise) == (30, 0.0)
    assert signal.cut > 0


def test_nothing_has_no_signal() -> None:
    signal, _ = signal_of_wide(torch.zeros(600, 500))
    assert (signal.rank, signal.noise, signal.cut, signal.error) == (0, 0.0, 0.0, 0.0)


def test_the_error_is_stated() -> None:
    signal, found = signal_of_wide(spiked((700, 700), 1.0))
    assert 0 < signal.error < 0.5
    assert signal.error == pytest.approx(float((found.residuals() / found.values)[: signal.rank].max()))


@pytest.mark.parametrize("shape", SHAPES)
def test_flips_of_a_block_tell_the_rank_that_flips_of_all_do(shape: tuple[int, int]) -> None:
    """Noise whose scale differs between rows and between columns."""
    generator = torch.Generator().manual_seed(1)
    scales = [torch.exp(0.2 * torch.randn(side, generator=generator)) for side in shape]
    matrix = spiked(shape, 0.0) + scales[0][:, None] * scales[1] * (spiked(shape, 1.0, 3) - spiked(shape, 0.0, 3))
    whole, part = signal_rank_by_flips(matrix.double()), unknown._rank_by_flips_of_a_block(Leading.of(matrix), 0.0)
    assert abs(whole - part) <= 2
    assert min(whole, part) >= RANK - 3


def test_a_target_is_told_alike_in_either_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """``signal_of`` itself, with the size from which it does not decompose in full set down."""
    from unmerge.vectors import Dense

    matrix = spiked((600, 700), 1.0)
    whole = spectrum.signal_of(Dense(matrix))
    monkeypatch.setattr("unmerge.vectors.delta.LARGE", 1000)
    part = spectrum.signal_of(Dense(matrix))
    assert part.rank == whole.rank
    held = torch.linalg.svdvals(part.left.T @ whole.left)
    assert float(held[: RANK - 4].min()) > 0.999
    np.testing.assert_allclose(part.values, whole.values, rtol=1e-3)
