"""Stacked layers: which layer of a target is which model's; the recipe is run by mergekit again."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from unmerge.decomposition import open_base, open_dictionary, open_vector
from unmerge.recipes import merge
from unmerge.recipes.inputs import Inputs
from unmerge.recipes.layers import stacked
from unmerge.recipes.record import RecoveredRecipe
from unmerge.recipes.recover import recover

#: model ("/" is the base), first layer, end
STACKS = {
    "deeper": [("/", 0, 3), ("pirate", 1, 4)],
    "shallower": [("pirate", 1, 2), ("opposite", 3, 4)],
    "as deep": [("pirate", 0, 2), ("/", 2, 4)],
    "twice": [("opposite", 0, 4), ("opposite", 0, 4)],
}


@pytest.fixture
def stack(zoo: Path, tmp_path: Path) -> Callable[..., Path]:
    def make(slices: list[tuple[str, int, int]], dtype: str = "bfloat16", scales: dict[int, Any] | None = None) -> Path:
        base = str(zoo / "zoo-base")
        place = {"/": base, **{name: f"{base}+{zoo / 'known' / name}" for name, _, _ in slices if name != "/"}}
        parts = [{"sources": [{"model": place[name], "layer_range": [first, end]}]} for name, first, end in slices]
        for number, scale in (scales or {}).items():
            parts[number]["sources"][0]["parameters"] = {"scale": scale}
        (tmp_path / "stack.yml").write_text(yaml.safe_dump({"merge_method": "passthrough", "dtype": dtype, "slices": parts}))
        merge(tmp_path / "stack.yml", tmp_path / "target")
        return tmp_path / "target"

    return make


def recovered(target: Path, zoo: Path) -> RecoveredRecipe:
    base = open_base(zoo / "zoo-base")
    return recover(open_vector(target, base), open_dictionary([zoo / "known"], base), base, target.parent / "recipe.yml")


@pytest.mark.parametrize(("name", "dtype"), [("deeper", "bfloat16"), ("shallower", "float32"), ("as deep", "bfloat16"), ("twice", "bfloat16")])
def test_stack(name: str, dtype: str, stack: Callable[..., Path], zoo: Path) -> None:
    record = recovered(stack(STACKS[name], dtype), zoo)
    assert (record.answer, record.method, record.identical_share) == ("recipe", "passthrough", 1.0)
    expected: list[dict[str, Any]] = [
        {"model": "the base" if model == "/" else model, "layer_range": [first, end]} for model, first, end in STACKS[name]
    ]
    assert record.parameters["slices"] == expected
    assert record.configuration is not None
    assert [part["sources"][0]["layer_range"] for part in record.configuration["slices"]] == [part["layer_range"] for part in expected]
    assert record.skipped == []


@pytest.mark.parametrize(
    "scales",
    [
        {"q_proj": 0.7071067812, "k_proj": 0.7071067812},  # a repeated layer whose attention is as sharp as that of one
        {"o_proj": 0.0, "down_proj": 0.0},  # one that adds nothing
    ],
)
def test_scaled_layers(scales: dict[str, float], stack: Callable[..., Path], zoo: Path) -> None:
    typed = [*({"filter": module, "value": scale} for module, scale in scales.items()), {"value": 1.0}]
    record = recovered(stack([("pirate", 0, 2), ("pirate", 1, 2), ("/", 2, 4)], scales={1: typed}), zoo)
    assert (record.answer, record.method, record.identical_share) == ("recipe", "passthrough", 1.0)
    first, second, third = record.parameters["slices"]
    assert [(part["model"], part["layer_range"]) for part in (first, second, third)] == [
        ("pirate", [0, 2]),
        ("pirate", [1, 2]),
        ("the base", [2, 4]),
    ]
    assert "parameters" not in first
    assert "parameters" not in third
    *found, rest = second["parameters"]["scale"]
    assert rest == {"value": 1.0}
    assert {part["filter"]: part["value"] for part in found} == pytest.approx(scales, rel=4e-3)  # bfloat16 rounds what it multiplies


def test_one_layer_changed(stack: Callable[..., Path], zoo: Path, tmp_path: Path) -> None:
    """A single weight that is no model's, and it is no stack."""
    from safetensors.torch import load_file, save_file

    target = stack(STACKS["as deep"])
    base = open_base(zoo / "zoo-base")
    inputs = Inputs(base, open_dictionary([zoo / "known"], base), tmp_path / "scratch")
    opened = open_vector(target, base)
    assert stacked(opened.tuned, inputs) is not None  # type: ignore[union-attr]
    weights = load_file(target / "model.safetensors")
    weights["model.layers.3.input_layernorm.weight"][5] += 0.5
    save_file(weights, target / "model.safetensors", metadata={"format": "pt"})
    assert stacked(open_vector(target, base).tuned, inputs) is None  # type: ignore[union-attr]


def test_equal_layers_are_all_reported(zoo: Path, stack: Callable[..., Path], tmp_path: Path) -> None:
    """Under another name, the same adapter would have done as well."""
    target = stack(STACKS["shallower"])
    for name, source in (("first", "pirate"), ("second", "pirate"), ("third", "opposite")):
        shutil.copytree(zoo / "known" / source, tmp_path / "twins" / name)
    base = open_base(zoo / "zoo-base")
    record = recover(open_vector(target, base), open_dictionary([tmp_path / "twins"], base), base, tmp_path / "recipe.yml")
    assert [part["model"] for part in record.parameters["slices"]] == ["first", "third"]
    assert [rival.parameters for rival in record.rivals] == [{"layers": {"0": ["first 1", "second 1"]}}]
