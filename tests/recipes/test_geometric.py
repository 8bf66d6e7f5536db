"""Methods that move along arcs, average or swap whole models, and settings that differ by layer and module: real merges by mergekit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from unmerge.checkpoints import Checkpoint
from unmerge.decomposition import open_base, open_dictionary
from unmerge.recipes.case import Case
from unmerge.recipes.forward import at, depth_of
from unmerge.recipes.inputs import Inputs
from unmerge.recipes.methods import DETERMINED
from unmerge.recipes.recipe import BASE, Recipe

Merged = Callable[..., Path]
GEOMETRIC = ("slerp", "nuslerp", "multislerp", "karcher", "model_stock", "arcee_fusion", "nearswap", "passthrough")
LAYERED = "linear or task_arithmetic by layer"
#: the example of mergekit's README
README = [{"filter": "self_attn", "value": [0, 0.5, 0.3, 0.7, 1]}, {"filter": "mlp", "value": [1, 0.5, 0.7, 0.3, 0]}, {"value": 0.5}]


@dataclass(frozen=True)
class Made:
    """A merge: models ("/" is the base) with their settings, the base, and settings for all."""

    models: dict[str, dict[str, Any]]
    base: str | None = None
    shared: dict[str, Any] | None = None


@pytest.fixture(scope="module")
def inputs(zoo: Path, tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    base = open_base(zoo / "zoo-base")
    return Inputs(base, open_dictionary([zoo / "known"], base), tmp_path_factory.mktemp("inputs"))


def case_of(inputs: Inputs, target: Path) -> Case:
    return Case.of(inputs, Checkpoint.open(target), list(inputs.base.shapes))


@pytest.fixture(scope="module")
def best(inputs: Inputs, merged: Merged) -> Callable[..., tuple[Case, Recipe]]:
    """The target of a merge, and the first of the best recipes that a method's file proposes for it."""

    def run(method: str, made: Made, dtype: str, file: str = "") -> tuple[Case, Recipe]:
        place = inputs.place
        models = [{"model": place[name], "parameters": settings} for name, settings in made.models.items()]
        base = place[made.base] if made.base else None
        case = case_of(inputs, merged({}, method, dtype=dtype, models=models, base_model=base, parameters=made.shared or {}))
        atoms = sorted(name for name in {*made.models, made.base} if name not in (BASE, None))
        return case, max(DETERMINED[file or method](case, atoms), key=case.identical)

    return run


CASES: dict[str, tuple[str, Made]] = {
    "slerp from the base": ("slerp", Made({"/": {}, "pirate": {}}, "/", {"t": 0.37})),
    "slerp of two atoms": ("slerp", Made({"opposite": {}, "pirate": {}}, "opposite", {"t": 0.549})),
    "nuslerp": ("nuslerp", Made({"pirate": {"weight": 0.7}, "opposite": {"weight": 0.309}})),
    "nuslerp by row from the base": ("nuslerp", Made({"pirate": {"weight": 0.7}, "opposite": {"weight": 0.4}}, "/", {"nuslerp_flatten": False})),
    "multislerp": ("multislerp", Made({"pirate": {"weight": 0.6}, "parity": {"weight": 0.45}, "opposite": {"weight": 1.2}})),
    "multislerp from the base": ("multislerp", Made({"pirate": {"weight": 0.894}, "opposite": {"weight": 0.605}}, "/")),
    "multislerp not normalised": ("multislerp", Made({"pirate": {"weight": 0.9}, "opposite": {"weight": 0.6}}, None, {"normalize_weights": False})),
    "karcher": ("karcher", Made({"pirate": {}, "opposite": {}, "parity": {}})),
    "karcher with the base": ("karcher", Made({"pirate": {}, "opposite": {}}, "/")),
    "model_stock": ("model_stock", Made({"pirate": {}, "opposite": {}, "maximum": {}}, "/")),
    "model_stock by row": ("model_stock", Made({"pirate": {}, "opposite": {}}, "/", {"filter_wise": True})),
    "arcee_fusion": ("arcee_fusion", Made({"pirate": {}, "opposite": {}}, "pirate")),
    "nearswap": ("nearswap", Made({"/": {}, "pirate": {}}, "/", {"t": 0.0025})),
    "a scaled model": ("passthrough", Made({"pirate": {"scale": [{"filter": "o_proj", "value": 0.5}, {"value": 1}]}})),
}


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("name", CASES)
def test_comes_back(name: str, dtype: str, best: Callable[..., tuple[Case, Recipe]]) -> None:
    method, made = CASES[name]
    case, recipe = best(method, made, dtype)
    assert case.identical(recipe) >= 0.999
    assert recipe.method == method
    assert set(recipe.atoms) == {name for name in made.models if name != BASE}
    settings = {name: value for name, value in (made.shared or {}).items() if name != "t"}
    assert {name: value for name, value in recipe.parameters.items() if name != "t"} == settings
    if (t := (made.shared or {}).get("t")) is not None:
        assert min(abs(recipe.parameters["t"] - value) for value in (t, 1 - t)) <= 1e-9
    weights = {model: settings["weight"] for model, settings in made.models.items() if "weight" in settings}
    scale = recipe.setting("pirate", "weight") / weights["pirate"] if weights else 1.0
    near = 1e-3 if dtype == "float32" else 8e-3  # two roundings to bfloat16
    assert scale == pytest.approx(1, rel=near) or "not normalised" not in name
    for model, weight in weights.items():
        assert recipe.setting(model, "weight") / scale == pytest.approx(weight, rel=near)
    assert recipe.setting("pirate", "scale") == made.models.get("pirate", {}).get("scale")


PATTERNED: dict[str, tuple[str, Made]] = {
    "slerp": ("slerp", Made({"/": {}, "pirate": {}}, "/", {"t": README})),
    "nuslerp": ("nuslerp", Made({"pirate": {"weight": [0.2, 0.8, 0.5]}, "opposite": {"weight": 0.5}})),
    "task_arithmetic": (
        "task_arithmetic",
        Made({"pirate": {"weight": [0.2, 0.8]}, "opposite": {"weight": [{"filter": "mlp", "value": 0.4}, {"value": 0.9}]}}, "/"),
    ),
    "linear": ("linear", Made({"pirate": {"weight": [0.2, 0.8, 0.5]}, "parity": {"weight": 0.5}})),
}


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("name", PATTERNED)
def test_settings_by_layer_and_module(name: str, dtype: str, best: Callable[..., tuple[Case, Recipe]]) -> None:
    """What comes back acts in every tensor as what was typed does, up to scale where weights are normalised."""
    method, made = PATTERNED[name]
    case, recipe = best(method, made, dtype, file=LAYERED if name in ("task_arithmetic", "linear") else method)
    assert recipe.method == method
    assert case.identical(recipe) >= 0.999
    for tensor in case.tensors:
        if "proj.weight" not in tensor:
            continue
        depth = depth_of(tensor, case.inputs.layers)
        if name == "slerp":
            expected = at(README, tensor, depth)
            found = at(recipe.parameters["t"], tensor, depth)
            assert found == pytest.approx(expected if recipe.base == BASE else 1 - expected, abs=1e-3)
            continue
        typed = torch.tensor([at(settings["weight"], tensor, depth) for settings in made.models.values()])
        found_weights = torch.tensor([at(recipe.setting(model, "weight"), tensor, depth) for model in made.models])
        if name != "task_arithmetic":
            typed, found_weights = typed / typed.sum(), found_weights / found_weights.sum()
        assert torch.allclose(found_weights, typed, rtol=2e-3)


def _other_targets(zoo: Path, merged: Merged, tmp_path: Path) -> Iterator[Path]:
    """Random masks, elected signs, one atom that is not known, noise."""
    from safetensors.torch import load_file, save_file

    two = {"pirate": 0.6, "opposite": 0.9}
    yield merged(two, "dare_linear", parameters={"density": 0.5})
    yield merged(two, "ties", dtype="float32", parameters={"density": 0.4})
    yield merged({}, models=[{"model": str(zoo / "unknown" / "plural"), "parameters": {"weight": 1.0}}])
    noisy = load_file(zoo / "zoo-base" / "model.safetensors")
    generator = torch.Generator().manual_seed(1)
    noisy = {name: (values.float() + 3e-3 * torch.randn(values.shape, generator=generator)).to(values.dtype) for name, values in noisy.items()}
    (tmp_path / "noise").mkdir()
    save_file(noisy, tmp_path / "noise" / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "noise" / "config.json").write_text((zoo / "zoo-base" / "config.json").read_text())
    yield tmp_path / "noise"


def test_gives_up(inputs: Inputs, zoo: Path, merged: Merged, tmp_path: Path) -> None:
    """What these methods did not make gets no recipe of theirs."""
    for target in _other_targets(zoo, merged, tmp_path):
        case = case_of(inputs, target)
        for method in (*GEOMETRIC, LAYERED):
            for atoms in (["pirate"], ["opposite", "pirate"], []):
                assert all(case.identical(recipe) < 0.95 for recipe in DETERMINED[method](case, atoms)), (target, method)
