"""Problems of every kind, from expanded vectors: what every solver is tried on."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

Array = NDArray[np.float64]


def random(rows: int, columns: int, seed: int = 0) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((rows, columns)), rng.standard_normal(rows)


def mixture() -> tuple[Array, Array]:
    """Atoms at a cosine of about .5 with one another, three of them in the target, and noise."""
    v, noise = random(200, 8, 1)
    v += v.mean(1, keepdims=True) * 3
    return v, v @ np.array([0.5, 0, 0.8, 0, 0, 1.2, 0, 0]) + 0.3 * noise


def orthogonal() -> tuple[Array, Array]:
    v, t = random(40, 6, 2)
    return np.linalg.qr(v)[0] * np.array([1.0, 2, 3, 4, 5, 6]), t


def twins() -> tuple[Array, Array]:
    """Two atoms that coincide, and one that is the sum of two others."""
    v, _ = random(60, 4, 3)
    v = np.column_stack([v, v[:, 0], v[:, 1] + v[:, 2]])
    return v, v @ np.array([1.0, 0.5, 0.5, 0, 0.5, 0])


def crowded() -> tuple[Array, Array]:
    """More atoms than weights."""
    return random(6, 15, 4)


def one_changes_nothing() -> tuple[Array, Array]:
    v, t = random(30, 4, 5)
    v[:, 2] = 0
    return v, t + v.sum(1)


def opposite() -> tuple[Array, Array]:
    v, t = random(30, 3, 6)
    return np.column_stack([v, -v[:, 0]]), t


def far_apart() -> tuple[Array, Array]:
    """Atoms whose norms differ by 14 orders of magnitude, and a small target."""
    v, t = mixture()
    return v * np.logspace(-7, 7, 8), 1e-6 * t


def uncorrelated() -> tuple[Array, Array]:
    v, t = random(30, 4, 7)
    return v, t - v @ np.linalg.lstsq(v, t, rcond=None)[0]


def against() -> tuple[Array, Array]:
    """Every correlation is negative: zero is the best non-negative answer."""
    v, _ = random(30, 3, 8)
    v = np.abs(v)
    return v, -v.sum(1)


CASES: dict[str, Callable[[], tuple[Array, Array]]] = {
    "random": lambda: random(50, 7),
    "mixture": mixture,
    "orthogonal": orthogonal,
    "coinciding atoms": twins,
    "more atoms than weights": crowded,
    "an atom that changes nothing": one_changes_nothing,
    "opposite atoms": opposite,
    "norms far apart": far_apart,
    "zero correlation": uncorrelated,
    "negative correlation": against,
    "one atom": lambda: random(10, 1, 9),
    "zero target": lambda: (random(10, 3)[0], np.zeros(10)),
    "atoms that change nothing": lambda: (np.zeros((10, 3)), random(10, 3)[1]),
    "no atoms": lambda: (np.zeros((10, 0)), random(10, 3)[1]),
}


@pytest.fixture
def make() -> Callable[[str], tuple[Array, Array]]:
    """Atoms (weights, n) and target (weights,) of a case, by name."""
    return lambda name: CASES[name]()


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> tuple[str, Array, Array]:
    """Every case in turn: name, atoms and target."""
    return (request.param, *CASES[request.param]())
