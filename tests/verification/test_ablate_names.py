"""What is written keeps the target's own names, whatever the base and the components call their tensors."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from peft import LoraConfig, PeftModel
from safetensors.torch import load_file, save_file
from torch import Tensor

from unmerge.decomposition import open_base, open_vector
from unmerge.verification.ablate import ablate

SIZES = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 40}
MODEL, ADAPTER = "model.safetensors", "adapter_model.safetensors"


def saved(folder: Path, model: Any, **settings: Any) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save_pretrained(folder, **settings)
    return folder


def near(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        torch.testing.assert_close(found[name], values, atol=1e-5, rtol=1e-4)


def trained(base: Path, tmp_path: Path, modules: list[str]) -> tuple[Path, Path]:
    """(an adapter of random weights, the base with it merged)."""
    torch.manual_seed(1)
    model = peft.get_peft_model(transformers.AutoModelForCausalLM.from_pretrained(base), LoraConfig(r=2, target_modules=modules))
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data.normal_(0, 0.3)
    return saved(tmp_path / "atom", model), saved(tmp_path / "target", model.merge_and_unload())


def without_prefix(folder: Path) -> Path:
    tensors = {name.removeprefix("transformer."): values for name, values in load_file(folder / MODEL).items()}
    save_file(tensors, folder / MODEL, metadata={"format": "pt"})
    return folder


@pytest.fixture
def bloom(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    model = transformers.BloomForCausalLM(transformers.BloomConfig(vocab_size=40, hidden_size=16, n_layer=2, n_head=2))
    return saved(tmp_path / "base", model)


def test_a_target_named_as_its_modules_on_a_base_named_as_on_the_hub(bloom: Path, tmp_path: Path) -> None:
    before = load_file(bloom / MODEL)
    atom, target = trained(bloom, tmp_path, ["query_key_value", "lm_head"])
    base = open_base(without_prefix(bloom))
    ablate(open_vector(target, base), [(open_vector(atom, base), 1.0)], tmp_path / "out")
    near(load_file(tmp_path / "out" / MODEL), before)


def test_an_adapter_keeps_the_names_that_peft_finds(bloom: Path, tmp_path: Path) -> None:
    atom, _ = trained(bloom, tmp_path, ["query_key_value"])
    base = open_base(without_prefix(bloom))
    vector = open_vector(atom, base)
    assert all(tensor.startswith("h.") for tensor in vector.shapes)
    ablate(vector, [(vector, 0.25)], tmp_path / "out")
    assert load_file(tmp_path / "out" / ADAPTER).keys() == load_file(atom / ADAPTER).keys()
    loaded = [
        PeftModel.from_pretrained(transformers.AutoModelForCausalLM.from_pretrained(bloom), folder).merge_and_unload().state_dict()
        for folder in (atom, tmp_path / "out")
    ]
    plain = transformers.AutoModelForCausalLM.from_pretrained(bloom).state_dict()
    near(loaded[1], {name: values + 0.75 * (loaded[0][name] - values) for name, values in plain.items()})


def test_experts_of_a_fused_target(tmp_path: Path) -> None:
    """The component was trained on single experts of a base in files; the target is fused, and stays so."""
    torch.manual_seed(0)
    model = transformers.MixtralForCausalLM(transformers.MixtralConfig(num_local_experts=3, **SIZES))
    base, fused = saved(tmp_path / "base", model), saved(tmp_path / "target", model, save_original_format=False)
    module, atom = "model.layers.1.block_sparse_moe.experts.2.w3", tmp_path / "atom"
    a, b = torch.randn(2, 16), torch.randn(24, 2)
    atom.mkdir()
    save_file({f"base_model.model.{module}.lora_A.weight": a, f"base_model.model.{module}.lora_B.weight": b}, atom / ADAPTER)
    (atom / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 2}))
    before = load_file(fused / MODEL)
    moved = {name: values.clone() for name, values in before.items()}
    moved["model.layers.1.mlp.experts.gate_up_proj"][2, 24:] += b @ a  # rows of up follow those of gate
    save_file(moved, fused / MODEL, metadata={"format": "pt"})
    opened = open_base(base)
    ablate(open_vector(fused, opened), [(open_vector(atom, opened), 1.0)], tmp_path / "out")
    near(load_file(tmp_path / "out" / MODEL), before)


@pytest.mark.parametrize("modules", [["lm_head"], ["lm_head", "embed_tokens"]], ids=["head", "head and embedding"])
def test_a_tied_head_is_taken_from_the_embedding(modules: list[str], tmp_path: Path) -> None:
    torch.manual_seed(0)
    base = saved(tmp_path / "base", transformers.Qwen2ForCausalLM(transformers.Qwen2Config(tie_word_embeddings=True, **SIZES)))
    atom, target = trained(base, tmp_path, modules)
    opened = open_base(base)
    ablate(open_vector(target, opened), [(open_vector(atom, opened), 1.0)], tmp_path / "out")
    near(load_file(tmp_path / "out" / MODEL), load_file(base / MODEL))
