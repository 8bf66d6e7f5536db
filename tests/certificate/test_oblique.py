"""Coefficients beside unknown components: exact where the target has no noise, close where it has."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from unmerge.certificate.directions import Directions
from unmerge.certificate.evidence import DIRECTIONS, gather, low_rank
from unmerge.certificate.oblique import oblique
from unmerge.certificate.systems import solve
from unmerge.vectors import Dense, Held, LowRank, gram

TRUTH = np.array([0.9, 0.5, 0.7])
NAMES, SHAPE = [f"w{place}" for place in range(4)], (64, 96)


def mixed(noise: float, hidden: int = 2) -> tuple[list[Held], Held]:
    """Three atoms in the target beside unknown ones that are related to them in two of four directions."""
    torch.manual_seed(0)
    parts: list[dict[str, LowRank]] = [{} for _ in range(3 + hidden)]
    for name in NAMES:
        shared = torch.randn(SHAPE[0], 2, dtype=torch.float64), torch.randn(2, SHAPE[1], dtype=torch.float64)
        for part in parts:
            b, a = torch.randn(SHAPE[0], 4, dtype=torch.float64), torch.randn(4, SHAPE[1], dtype=torch.float64)
            b[:, :2] += shared[0]
            a[:2] += shared[1]
            part[name] = LowRank(b, a)
    weights = [*TRUTH, *[0.8] * hidden]
    change = {
        name: Dense(
            sum((float(c) * part[name].dense() for c, part in zip(weights, parts, strict=True)), torch.zeros(SHAPE, dtype=torch.float64))
            + noise * torch.randn(SHAPE, dtype=torch.float64)
        )
        for name in NAMES
    }
    return [Held(f"atom {place}", part) for place, part in enumerate(parts[:3])], Held("target", change)


def estimates(atoms: list[Held], target: Held) -> tuple[np.ndarray, np.ndarray]:
    """Least squares, and with the unknown projected off."""
    products = gram(atoms, target)
    squares = solve(products.gram.sum(0), products.correlation.sum(0))
    evidence = gather(atoms, target, np.zeros((0, len(atoms))), NAMES)
    own = [Directions.of(low_rank(atoms, range(len(atoms)), name), DIRECTIONS) for name in NAMES]
    return squares, oblique(evidence, list(range(len(atoms))), own, squares).together


def test_exact_without_noise() -> None:
    squares, first = estimates(*mixed(0.0))
    assert np.abs(squares / TRUTH - 1).max() > 0.03
    np.testing.assert_allclose(first, TRUTH, rtol=1e-6)


@pytest.mark.parametrize("noise", [0.02, 0.1])
def test_close_under_noise(noise: float) -> None:
    squares, first = estimates(*mixed(noise))
    assert np.abs(first / TRUTH - 1).max() < np.abs(squares / TRUTH - 1).max() / 2
    assert np.abs(first / TRUTH - 1).max() < 0.03


def test_nothing_unknown() -> None:
    """Then least squares is right already."""
    for answer in estimates(*mixed(0.0, hidden=0)):
        np.testing.assert_allclose(answer, TRUTH, rtol=1e-6)
