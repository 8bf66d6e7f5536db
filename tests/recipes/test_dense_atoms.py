"""Recipes of merges whose models are full checkpoints: fine-tunes that no adapter holds, beside adapters."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from unmerge.decomposition import open_base, open_dictionary, open_vector
from unmerge.recipes.recover import recover


@pytest.fixture(scope="module")
def dictionary(zoo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two full fine-tunes, every tensor of them changed, and an adapter."""
    folder = tmp_path_factory.mktemp("dictionary")
    before = load_file(zoo / "zoo-base" / "model.safetensors")
    for seed, name in enumerate(("first", "second")):
        shutil.copytree(zoo / "zoo-base", folder / name)
        generator = torch.Generator().manual_seed(seed)
        tuned = {
            tensor: (values.float() + 0.02 * values.float().std() * torch.randn(values.shape, generator=generator)).to(values.dtype)
            for tensor, values in before.items()
        }
        save_file(tuned, folder / name / "model.safetensors", metadata={"format": "pt"})
    shutil.copytree(zoo / "known" / "pirate", folder / "pirate")
    return folder


CASES: dict[str, dict[str, Any]] = {"task_arithmetic": {}, "ties": {"density": 0.4}}


@pytest.mark.parametrize("method", CASES)
def test_full_checkpoints_beside_an_adapter(method: str, zoo: Path, dictionary: Path, tmp_path: Path, merged: Callable[..., Path]) -> None:
    weights = {"first": 0.54, "second": 0.9, "pirate": 0.33}
    models = [{"model": str(dictionary / name), "parameters": {"weight": weight, **CASES[method]}} for name, weight in weights.items()]
    base = open_base(zoo / "zoo-base")
    target = merged({}, method, dtype="bfloat16", models=models)
    record = recover(open_vector(target, base), open_dictionary([dictionary], base), base, tmp_path / "recipe.yml")
    assert (record.answer, record.method) == ("recipe", method)
    found = {name: settings["weight"] for name, settings in record.parameters["models"].items()}
    scale = sum(weights.values()) / sum(found.values()) if method == "ties" else 1
    assert {name: weight * scale for name, weight in found.items()} == pytest.approx(weights, rel=4e-3)
    assert record.identical_share is not None
    assert record.identical_share >= 0.999
