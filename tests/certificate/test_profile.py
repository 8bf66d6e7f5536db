"""Atoms that act with other coefficients in other parts of the model, in some parts alone, or below zero."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from real_like import SHAPES, adapters, certified, claims

from unmerge.certificate.profile import profile, varies


def layer(tensor: str) -> int:
    return int(tensor.split(".")[2])


PARTS: dict[str, Callable[[str], float]] = {
    "gradient from 0": lambda tensor: 0.45 * layer(tensor),
    "gradient": lambda tensor: [1.0, 0.6, 0.2][layer(tensor)],
    "two kinds of module": lambda tensor: 0.8 * ("q_proj" in tensor or "v_proj" in tensor),
    "kinds apart": lambda tensor: 0.9 if "o_proj" in tensor else 0.3,
    "one layer": lambda tensor: 0.9 * (layer(tensor) == 1),
}


@pytest.mark.parametrize("dtype", [None, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("unknown", [False, True], ids=["known", "mixed"])
@pytest.mark.parametrize("part", PARTS)
def test_a_part_of_the_model(part: str, unknown: bool, dtype: torch.dtype | None) -> None:
    """The atom is found, each part of its profile holds what acted there, and the other component keeps its one coefficient."""
    drawn, weight = adapters(10, torch.Generator().manual_seed(0)), PARTS[part]
    parts = [(drawn[0], weight), (drawn[1], 0.6)] + ([(drawn[8], 0.8), (drawn[9], 0.5)] if unknown else [])
    certificate = certified(parts, drawn[:8], dtype)
    found = {one.atom: one for one in certificate.found}
    assert found.keys() == {0, 1}
    assert found[0].profile
    for group in found[0].profile:
        (truth,) = {weight(tensor) for tensor in group.tensors}
        assert group.coefficient == pytest.approx(truth, abs=0.01 if dtype else 1e-5)
        # the interval holds the truth up to the figures of float32 and of the grid
        assert group.interval[0] - 2e-4 <= truth <= group.interval[1] + 2e-4
    assert sorted(tensor for group in found[0].profile for tensor in group.tensors) == sorted(SHAPES)
    assert not found[1].profile
    assert found[1].coefficient == pytest.approx(0.6, rel=5e-3)
    assert not unknown or certificate.unknown_components == 2
    assert dtype or claims(certificate) == {0: "exact", 1: "exact"}


@pytest.mark.parametrize("weight", [-0.5, -1.0])
@pytest.mark.parametrize("unknown", [False, True], ids=["known", "mixed"])
def test_below_zero(weight: float, unknown: bool) -> None:
    """A subtracted component is found as an added one is."""
    drawn = adapters(10, torch.Generator().manual_seed(1))
    parts = [(drawn[0], weight), (drawn[1], 0.6)] + ([(drawn[8], 0.8)] if unknown else [])
    found = {one.atom: one for one in certified(parts, drawn[:8], torch.bfloat16).found}
    assert found.keys() == {0, 1}
    assert found[0].coefficient == pytest.approx(weight, rel=5e-3)
    assert found[0].interval[1] < 0


def test_noise_is_no_profile() -> None:
    """Answers that scatter as their errors say do not vary, nor do those that scatter without regard to layers and kinds."""
    rng = np.random.default_rng(0)
    tensors = [f"layers.{place}.{kind}.weight" for place in range(6) for kind in ("q", "k", "v")]
    precision = np.full(len(tensors), 400.0)
    noise = 0.05 * rng.standard_normal(len(tensors))
    assert not varies(0.7 + noise, precision, tensors, noisy=True)
    assert not varies(0.7 + 4 * noise, precision, tensors, noisy=True)
    by_layer = np.repeat([0.2, 0.4, 0.6, 0.8, 1.0, 1.2], 3)
    assert varies(by_layer + noise, precision, tensors, noisy=True)
    assert not varies(np.full(len(tensors), np.nan), precision, tensors, noisy=True)
    groups = profile(by_layer + noise, precision, tensors, noisy=True, leak=0.0, figures=1e-6)
    assert [group.layer for group in groups] == [f"layers.{place}" for place in range(6)]
    held = [group.interval[0] <= truth <= group.interval[1] for group, truth in zip(groups, (0.2, 0.4, 0.6, 0.8, 1.0, 1.2), strict=True)]
    assert sum(held) >= 5
