"""Patterns of settings over layers and modules, from estimates by tensor."""

from __future__ import annotations

from typing import Any

import pytest

from unmerge.recipes.by_tensor.patterns import Estimate, pattern, relative
from unmerge.recipes.forward import at, depth_of

LAYERS = 6
KINDS = ("self_attn.q_proj", "self_attn.o_proj", "mlp.up_proj", "mlp.down_proj")
TENSORS = [f"model.layers.{layer}.{kind}.weight" for layer in range(LAYERS) for kind in KINDS]
SETTINGS: dict[str, Any] = {
    "constant": 0.5,
    "gradient": [0.1, 0.9, 0.4],
    "more values than layers": [0, 0.5, 0.3, 0.7, 1, 0.2, 0.6],
    "filter": [{"filter": "q_proj", "value": 0.3}, {"value": 0.7}],
    "filters and gradients": [{"filter": "self_attn", "value": [0, 0.9, 1]}, {"value": [1, 0.2]}],
}


def estimates(setting: Any) -> dict[str, Estimate]:
    return {tensor: Estimate(at(setting, tensor, depth_of(tensor, LAYERS)), 1e-6) for tensor in TENSORS}


@pytest.mark.parametrize("name", SETTINGS)
def test_pattern(name: str) -> None:
    """It acts as the setting does, and has no more numbers."""
    found = pattern(estimates(SETTINGS[name]), LAYERS, 1e-6)
    assert found is not None
    for tensor, estimate in estimates(SETTINGS[name]).items():
        assert at(found.setting, tensor, depth_of(tensor, LAYERS)) == pytest.approx(estimate.value, abs=1e-5)
    assert len(found.numbers) == {"constant": 1, "gradient": 3, "more values than layers": 6, "filter": 2, "filters and gradients": 5}[name]


def test_no_pattern() -> None:
    """Tensors of one layer and module that disagree; nothing that tells."""
    scattered = estimates(0.5) | {
        f"model.layers.2.self_attn.q_proj.{part}": Estimate(value, 1e-6) for part, value in (("weight", 0.5), ("bias", 0.9))
    }
    assert pattern(scattered, LAYERS, 1e-6) is None
    assert pattern({"model.norm.weight": Estimate(0.0, float("inf"))}, LAYERS, 1e-6) is None


def test_up_to_a_factor_in_each_tensor() -> None:
    """A gradient beside a constant, divided by their sum: the constant is the measure that takes the fewest numbers."""
    one, two = estimates([0.2, 0.8, 0.5]), estimates(0.5)
    total = {tensor: one[tensor].value + two[tensor].value for tensor in TENSORS}
    shares = {
        name: {tensor: Estimate(value.value / total[tensor], 1e-7) for tensor, value in values.items()} for name, values in (("a", one), ("b", two))
    }
    found = relative(shares, LAYERS, 1e-6)
    assert found["b"].setting == pytest.approx(1)
    assert found["a"].setting == pytest.approx([0.4, 1.6, 1.0], rel=1e-5)
