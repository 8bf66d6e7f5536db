"""Where the dtype of a merge, of its values and of its file differ, and where a target is too large to be held: real merges by mergekit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import unmerge.recipes.case
from unmerge.checkpoints import Checkpoint
from unmerge.decomposition import open_base, open_dictionary
from unmerge.recipes.case import Case
from unmerge.recipes.chance.by_layer import masks_read
from unmerge.recipes.forward import layer_of
from unmerge.recipes.inputs import Inputs
from unmerge.recipes.methods import BY_WEIGHT, DETERMINED
from unmerge.recipes.recipe import Recipe

Merged = Callable[..., Path]
WEIGHTS = {"parity": 0.45, "pirate": 0.6}


@pytest.fixture(scope="module")
def inputs(zoo: Path, tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    base = open_base(zoo / "zoo-base")
    return Inputs(base, open_dictionary([zoo / "known"], base), tmp_path_factory.mktemp("inputs"))


def changed(inputs: Inputs, *parts: str) -> list[str]:
    """The matrices of layers whose names hold one of the parts."""
    return [
        tensor for tensor in inputs.base.shapes if layer_of(tensor) is not None and tensor.endswith("proj.weight") and any(map(tensor.count, parts))
    ]


def models(inputs: Inputs, **more: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"model": inputs.place[name], "parameters": {"weight": weight, **{key: values[name] for key, values in more.items()}}}
        for name, weight in WEIGHTS.items()
    ]


def best(method: str, case: Case, share: float = 1.0) -> Recipe:
    found = max(DETERMINED[method](case, list(WEIGHTS)), key=case.identical)
    assert case.identical(found) >= share
    return found


def weights_of(recipe: Recipe) -> dict[str, Any]:
    return {model.model: model.parameters["weight"] for model in recipe.inputs}


@pytest.mark.parametrize(("dtype", "out"), [("float32", "bfloat16"), ("float32", "float16"), ("bfloat16", "float32"), ("bfloat16", "float16")])
def test_computed_in_one_dtype_and_written_in_another(dtype: str, out: str, inputs: Inputs, merged: Merged) -> None:
    target = merged({}, "task_arithmetic", dtype=dtype, out_dtype=out, models=models(inputs))
    case = Case.of(inputs, Checkpoint.open(target), changed(inputs, ".layers.1.", ".layers.2."))
    narrower = out if dtype == "float32" else dtype
    assert case.dtype is case.computed is getattr(torch, narrower)
    if dtype == "float32":
        assert case.wider is not None
        case = case.wider
    recipe = best("task_arithmetic", case)
    assert weights_of(recipe) == WEIGHTS
    written = case.written(recipe)
    assert (written.dtype, written.out_dtype) == (dtype, out)
    assert written.configuration(inputs.place)["out_dtype"] == out


def test_a_merge_in_its_own_dtype_says_nothing_of_another(inputs: Inputs, merged: Merged) -> None:
    for dtype in ("bfloat16", "float32"):
        case = Case.of(inputs, Checkpoint.open(merged(WEIGHTS, dtype=dtype)), changed(inputs, ".layers.1."))
        assert case.dtype is getattr(torch, dtype)
        assert (case.wider is None) is (dtype == "float32")
        assert case.written(Recipe("linear", (), dtype=dtype)).out_dtype is None


def test_adapters_as_peft_merges_them(inputs: Inputs) -> None:
    """To the last bit, the whole and some rows."""
    theirs = inputs._merged(inputs.dictionary.named("pirate"))  # type: ignore[arg-type]
    for tensor in inputs.base.shapes:
        whole = theirs.read(tensor)
        assert torch.equal(inputs.read("pirate", tensor, torch.bfloat16), whole)
        assert torch.equal(inputs.read("pirate", tensor, torch.bfloat16, slice(0, None, 3)), whole[::3])


def test_too_large_to_be_held(inputs: Inputs, merged: Merged, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small tensors are held whole, and rows of all others tell methods that treat every weight by itself."""
    filtered = [{"filter": "mlp", "value": 0.3}, {"value": 0.7}]
    target = merged({}, "task_arithmetic", models=models(inputs, weight={"parity": 0.45, "pirate": filtered}))
    monkeypatch.setattr(unmerge.recipes.case, "HELD", 50_000)
    names = changed(inputs, ".layers.")
    case = Case.of(inputs, Checkpoint.open(target), names)
    assert case.tensors
    assert not case.rows
    assert sum(case.wanted(tensor).numel() for tensor in case.tensors) <= 50_000
    assert not any("mlp" in tensor for tensor in case.tensors)
    everywhere = case.everywhere(names)
    assert set(everywhere.tensors) == set(names)
    assert sum(everywhere.wanted(tensor).numel() for tensor in names) <= 50_000
    method = "linear or task_arithmetic by layer"
    assert method in BY_WEIGHT
    recipe = best(method, everywhere, 0.999)
    assert weights_of(recipe) == {"parity": 0.45, "pirate": [{"filter": "mlp", "value": 0.3}, {"value": 0.7}]}


def test_a_sum_of_models_that_is_not_divided(inputs: Inputs, merged: Merged) -> None:
    target = merged({}, "linear", models=models(inputs), base_model=None, parameters={"normalize": False})
    case = Case.of(inputs, Checkpoint.open(target), changed(inputs, ".layers.1."))
    recipe = best("linear", case)
    assert weights_of(recipe) == WEIGHTS
    assert recipe.parameters == {"normalize": False}


def test_random_masks_under_a_gradient(inputs: Inputs, merged: Merged) -> None:
    typed = {"parity": [0.2, 0.8], "pirate": [0.9, 0.3]}
    target = merged({}, "della_linear", models=models(inputs, weight=typed, density=dict.fromkeys(typed, 0.6)), parameters={"epsilon": 0.05})
    case = Case.of(inputs, Checkpoint.open(target), changed(inputs, "self_attn"))
    found = masks_read(case, list(WEIGHTS))
    assert found is not None
    assert found.speaks
    assert dict(zip(found.atoms, found.typed, strict=True)) == {atom: pytest.approx(values, abs=0.01) for atom, values in typed.items()}
    assert found.density.tolist() == pytest.approx([0.6, 0.6], abs=0.02)
