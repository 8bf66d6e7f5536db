"""Calls of PEFT's ``add_weighted_adapter`` recovered from what PEFT itself made of the zoo's adapters."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from unmerge.recipes.record import RecoveredRecipe

NAMES = ("pirate", "parity", "maximum")
WEIGHTS = (0.54, 0.9, 0.33)


@pytest.fixture(scope="module")
def whole(zoo: Path) -> Any:
    """The zoo's model with three of its adapters, loaded as a user loads them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = transformers.AutoModelForCausalLM.from_pretrained(zoo / "zoo-base")
        model = peft.PeftModel.from_pretrained(model, zoo / "known" / NAMES[0], adapter_name=NAMES[0])
        for name in NAMES[1:]:
            model.load_adapter(zoo / "known" / name, adapter_name=name)
    return model


@pytest.fixture
def combined(whole: Any, tmp_path: Path) -> Callable[..., Path]:
    """What PEFT makes of three adapters or fewer, saved by PEFT; the base is in bfloat16, and so is what ``cat`` makes."""

    def make(weights: tuple[float, ...] = WEIGHTS, dtype: torch.dtype | None = None, **arguments: Any) -> Path:
        torch.manual_seed(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            whole.add_weighted_adapter(list(NAMES[: len(weights)]), list(weights), "made", **arguments)
            whole.save_pretrained(tmp_path, selected_adapters=["made"])
        whole.delete_adapter("made")
        file = tmp_path / "made" / "adapter_model.safetensors"
        save_file({name: values.to(dtype or values.dtype) for name, values in load_file(file).items()}, file)
        return tmp_path / "made"

    return make


DETERMINED: dict[str, dict[str, Any]] = {
    "linear": {},
    "cat": {},
    "magnitude_prune": {"density": 0.35},
    "ties": {"density": 0.4, "majority_sign_method": "frequency"},
    "svd": {},
    "ties_svd": {"density": 0.4, "majority_sign_method": "total", "svd_rank": 12},
}


@pytest.mark.parametrize("kind", DETERMINED)
def test_determined(kind: str, combined: Callable[..., Path], recovered: Callable[[Path], RecoveredRecipe]) -> None:
    record = recovered(combined(combination_type=kind, **DETERMINED[kind]))
    assert (record.answer, record.method) == ("recipe", f"peft:{kind}")
    assert record.configuration is None
    assert record.call is not None
    assert dict(zip(record.call["adapters"], record.call["weights"], strict=True)) == pytest.approx(dict(zip(NAMES, WEIGHTS, strict=True)), rel=1e-6)
    expected = DETERMINED[kind] | ({"svd_rank": DETERMINED[kind].get("svd_rank", 8)} if kind.endswith("svd") else {})
    assert {name: value for name, value in record.call.items() if name not in ("adapters", "weights", "combination_type")} == expected
    assert record.identical_share is not None
    assert record.identical_share >= 0.999


@pytest.mark.parametrize("kind", ["linear", "ties"])
def test_sixteen_bits_and_a_negative_weight(kind: str, combined: Callable[..., Path], recovered: Callable[[Path], RecoveredRecipe]) -> None:
    weights = (0.54, -0.9, 0.3317)
    arguments = {"density": 0.55} if kind == "ties" else {}
    record = recovered(combined(weights, torch.bfloat16, combination_type=kind, **arguments))
    assert record.method == f"peft:{kind}"
    assert {name: settings["weight"] for name, settings in record.parameters["models"].items()} == dict(zip(NAMES, weights, strict=True))
    assert record.identical_share is not None
    assert record.identical_share >= 0.999


@pytest.mark.parametrize("kind", ["dare_linear", "dare_ties"])
def test_random_masks(kind: str, combined: Callable[..., Path], recovered: Callable[[Path], RecoveredRecipe]) -> None:
    record = recovered(combined(WEIGHTS[:2], combination_type=kind, density=0.6))
    assert record.method == f"peft:{kind}"
    assert record.parameters["density"] == 0.6
    assert {name: settings["weight"] for name, settings in record.parameters["models"].items()} == dict(zip(NAMES[:2], WEIGHTS[:2], strict=True))
    assert record.identical_share is None
    assert record.proof is not None
    assert record.proof.explained is not None
    assert record.proof.explained >= 0.99
    assert max(record.proof.decoys.values()) < record.proof.explained - 0.2


def test_another_alpha(zoo: Path, tmp_path: Path, recovered: Callable[[Path], RecoveredRecipe]) -> None:
    shutil.copytree(zoo / "known" / "pirate", tmp_path / "copy")
    file = tmp_path / "copy" / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"lora_alpha": 4}))
    record = recovered(tmp_path / "copy")
    assert (record.answer, record.method, record.parameters, record.call) == ("recipe", "adapter", {"models": {"pirate": {"weight": 0.5}}}, None)
    assert record.proof is not None
    assert (record.identical_share, record.proof.reconstruction_error) == (1.0, pytest.approx(0.0, abs=1e-7))


def test_none_of_these(zoo: Path, recovered: Callable[[Path], RecoveredRecipe]) -> None:
    record = recovered(zoo / "unknown" / "formal")
    assert (record.answer, record.method, record.call) == ("none of these", None, None)
    assert record.unknown is not None


def test_beside_something_unknown(zoo: Path, tmp_path: Path, recovered: Callable[[Path], RecoveredRecipe]) -> None:
    """Two known adapters and an unknown one, stacked: no call makes it, and the known part comes with its weights."""
    weights = {zoo / "known" / "pirate": 0.54, zoo / "known" / "parity": 0.9, zoo / "unknown" / "formal": 0.7}
    parts = {folder: load_file(folder / "adapter_model.safetensors") for folder in weights}
    stacked = {}
    for name in parts[zoo / "known" / "pirate"]:
        side = name.rpartition("lora_")[2][0]
        blocks = [part[name] * (weights[folder] if side == "A" else 1.0) for folder, part in parts.items()]
        stacked[name] = torch.cat(blocks, dim=0 if side == "A" else 1).contiguous()
    shutil.copytree(zoo / "known" / "pirate", tmp_path / "stacked")
    save_file(stacked, tmp_path / "stacked" / "adapter_model.safetensors")
    file = tmp_path / "stacked" / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"r": 24, "lora_alpha": 24, "rank_pattern": {}, "alpha_pattern": {}}))
    record = recovered(tmp_path / "stacked")
    assert (record.answer, record.method, record.call, record.identical_share) == ("part of a recipe", "peft:cat", None, None)
    assert {name: part.coefficient for name, part in record.acted.items()} == pytest.approx({"pirate": 0.54, "parity": 0.9}, abs=2e-3)
    assert record.parameters["models"] == {"pirate": {"weight": 0.54}, "parity": {"weight": 0.9}}
    assert record.unknown is not None
    delta = {side: parts[zoo / "unknown" / "formal"][name] for name in stacked for side in "AB" if f"0.self_attn.q_proj.lora_{side}" in name}
    assert (record.unknown.rank, record.unknown.components) == (len(delta["A"]), 1)
    assert 0.05 < record.unknown.share < 0.6
