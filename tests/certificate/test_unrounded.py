"""Targets as they were before they were rounded: moments against scipy, coefficients beside something unknown."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from unmerge.certificate.refined import Looked, Refined, refined
from unmerge.certificate.rounding import Grid, Sample
from unmerge.certificate.unrounded import likeliest, settled, truncated, unrounded
from unmerge.vectors import Dense, Held, LowRank, TaskVector

TRUTH, UNKNOWN = np.array([0.6, 1.0]), 0.7
SHAPES = {f"layers.{layer}.weight": (112, 128) for layer in range(6)}
LOOKED = [Looked(name, noise=1e-3, most=4, rank=12) for name in SHAPES]


def test_moments_of_the_truncated_normal_law() -> None:
    """Around 0, far out on either side, wide and narrow."""
    low = torch.tensor([-0.5, 0.1, -3.0, 2.0, -7.0, -1e-3, -40.0], dtype=torch.float64)
    high = torch.tensor([0.7, 0.2, 3.0, 9.0, -6.0, 1e-3, 40.0], dtype=torch.float64)
    mean, variance = truncated(low, high)
    expected = stats.truncnorm.stats(low.numpy(), high.numpy(), moments="mv")
    np.testing.assert_allclose(mean.numpy(), expected[0], rtol=1e-3, atol=1e-9)
    np.testing.assert_allclose(variance.numpy(), expected[1], rtol=2e-2, atol=1e-7)
    beyond, _ = truncated(torch.tensor([30.0, -31.0]).double(), torch.tensor([31.0, -30.0]).double())
    np.testing.assert_allclose(beyond.numpy(), [30, -30], rtol=1e-2)


def test_what_was_rounded_away_comes_back_on_average() -> None:
    """Of changes of a fifth of a step nearly all are 0 after rounding; their regression on the truth is 1 before it."""
    torch.manual_seed(0)
    truth = 0.2 * torch.randn(64, 2048, dtype=torch.float64)
    offset = 0.5 * torch.rand(64, 2048, dtype=torch.float64)  # grids that do not lie around 0, so that the cells tell
    middle = (truth + offset).round() - offset
    before = unrounded(middle - 0.5, middle + 0.5)
    slope = float((before * truth).sum() / truth.square().sum())
    assert slope == pytest.approx(1, abs=0.03)


def mixed(steps: float, sequence: bool) -> tuple[list[Held], Held, Grid]:
    """Two known atoms and an unknown one, added at once or one after another, with changes of so many steps in all."""
    torch.manual_seed(0)
    base = {name: (0.03 * torch.randn(shape)).bfloat16() for name, shape in SHAPES.items()}
    size = (0.02 * 2**-7 * steps / 2 / 1.36) ** 0.5
    shared = {name: (torch.randn(shape[0], 4), torch.randn(4, shape[1])) for name, shape in SHAPES.items()}
    atoms = []
    for place in range(3):
        deltas = {}
        for name, (rows, columns) in SHAPES.items():
            b, a = 0.9 * torch.randn(rows, 4) + 0.43 * shared[name][0], 0.9 * torch.randn(4, columns) + 0.43 * shared[name][1]
            deltas[name] = LowRank(size * b, size * a)
        atoms.append(Held(f"atom {place}", deltas))
    change = {}
    for name, values in base.items():
        parts = [weight * atom.deltas[name].dense() for weight, atom in zip([*TRUTH.tolist(), UNKNOWN], atoms, strict=True)]
        merged: Tensor = values.float()
        for part in parts:
            merged = (merged + part).bfloat16().float() if sequence else merged + part
        change[name] = Dense(merged.bfloat16().double() - values.double())
    return atoms[:2], Held("target", change), Grid(base.__getitem__, lambda _: torch.bfloat16)


@pytest.mark.parametrize(("steps", "sequence"), [(0.6, False), (1.0, True)])
def test_coefficients_beside_something_unknown(steps: float, sequence: bool) -> None:
    """Off by more than 2% from the rounded target, by less than 1% from the one before."""
    atoms, target, grid = mixed(steps, sequence)
    sample = Sample.of(atoms, target, grid)
    start = np.linalg.lstsq(sample.atoms.numpy().T, sample.change.numpy(), rcond=None)[0]
    assert bool(likeliest(sample, start).sequence) == sequence
    rounded = refined(atoms, target, LOOKED, start).coefficients

    def project(vector: TaskVector, guess: np.ndarray) -> tuple[np.ndarray, Refined]:
        found = refined(atoms, vector, LOOKED, guess, rounds=1)
        return found.coefficients[0], found

    before = settled(atoms, target, sample, start, project)
    assert before is not None
    assert np.abs(rounded / TRUTH - 1).max() > 0.02
    assert np.abs(before[0].coefficients / TRUTH - 1).max() < 0.01
