"""What an adapter does to every tensor, against what PEFT's own merge does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from peft import LoHaConfig, LoKrConfig, LoraConfig
from safetensors.torch import load_file, save_file
from torch import Tensor

from unmerge.checkpoints import Adapter, Checkpoint
from unmerge.core.errors import BadInput
from unmerge.vectors import Dense, LowRank

QWEN = {"r": 3, "lora_alpha": 5, "target_modules": ["q_proj", "down_proj"]}
BIASED = {"r": 3, "lora_alpha": 5, "target_modules": ["q_proj", "v_proj"]}
GPT2 = {"r": 3, "lora_alpha": 5, "target_modules": ["c_attn", "c_proj"], "fan_in_fan_out": True}
PATTERNS = {
    "rank_pattern": {"q_proj": 2, "^model.layers.1.mlp.down_proj": 4},
    "alpha_pattern": {"k_proj": 7, r"layers\.0\.self_attn\.q_proj": 11},
}
BF16 = torch.bfloat16

#: name -> (base, PEFT's configuration, dtype that it is saved in)
CASES: dict[str, tuple[str, peft.PeftConfig, torch.dtype]] = {
    "plain": ("qwen", LoraConfig(**QWEN), torch.float32),
    "patterns": ("qwen", LoraConfig(r=3, lora_alpha=5, target_modules=["q_proj", "k_proj", "down_proj"], **PATTERNS), torch.float32),
    "rslora": ("qwen", LoraConfig(use_rslora=True, **QWEN), torch.float32),
    "rslora with patterns": ("qwen", LoraConfig(use_rslora=True, rank_pattern={"q_proj": 7}, alpha_pattern={"q_proj": 3}, **QWEN), torch.float32),
    "all linear modules": ("qwen", LoraConfig(r=2, target_modules="all-linear"), torch.float32),
    "some layers": ("qwen", LoraConfig(layers_to_transform=[1], **QWEN), torch.float32),
    "bias of B": ("qwen", LoraConfig(lora_bias=True, **BIASED), torch.float32),
    "all biases": ("qwen", LoraConfig(bias="all", **QWEN), torch.float32),
    "biases of adapted modules": ("qwen", LoraConfig(bias="lora_only", **BIASED), torch.float32),
    "all biases and the bias of B": ("qwen", LoraConfig(bias="all", lora_bias=True, **BIASED), torch.float32),
    "embedding": ("qwen", LoraConfig(r=3, lora_alpha=5, target_modules=["q_proj", "embed_tokens"]), torch.float32),
    "embedding and head, rslora": ("qwen", LoraConfig(r=3, use_rslora=True, target_modules=["embed_tokens", "lm_head"]), torch.float32),
    "dora": ("qwen", LoraConfig(use_dora=True, **QWEN), torch.float32),
    "dora, rslora, all biases": ("qwen", LoraConfig(use_dora=True, use_rslora=True, bias="all", **BIASED), torch.float32),
    "dora of the embedding": ("qwen", LoraConfig(use_dora=True, r=3, target_modules=["embed_tokens"]), torch.float32),
    "whole modules": ("qwen", LoraConfig(modules_to_save=["lm_head", "embed_tokens"], **QWEN), torch.float32),
    "whole norms": ("qwen", LoraConfig(modules_to_save=["norm", "input_layernorm"], **QWEN), torch.float32),
    "whole head of a tied base": ("tied", LoraConfig(modules_to_save=["lm_head"], **QWEN), torch.float32),
    "whole embedding of a tied base": ("tied", LoraConfig(modules_to_save=["embed_tokens"], **QWEN), torch.float32),
    "orthogonal start": ("qwen", LoraConfig(init_lora_weights="orthogonal", r=4, target_modules=["q_proj"]), torch.float32),
    "loha": ("qwen", LoHaConfig(r=3, alpha=5, target_modules=["q_proj", "down_proj"]), torch.float32),
    "loha with patterns": ("qwen", LoHaConfig(r=3, alpha=5, target_modules=["q_proj", "v_proj"], rank_pattern={"q_proj": 2}), torch.float32),
    "lokr, factors of mixed kinds": ("qwen", LoKrConfig(r=2, alpha=5, target_modules=["q_proj", "down_proj"]), torch.float32),
    "lokr, both whole": ("qwen", LoKrConfig(r=16, alpha=5, target_modules=["q_proj"]), torch.float32),
    "lokr, second split": ("qwen", LoKrConfig(r=2, alpha=5, decompose_factor=2, target_modules=["down_proj"]), torch.float32),
    "lokr, both split": ("qwen", LoKrConfig(r=1, alpha=5, decompose_both=True, decompose_factor=4, target_modules=["down_proj"]), torch.float32),
    "lokr, first split": ("qwen", LoKrConfig(r=3, alpha=5, decompose_both=True, decompose_factor=8, target_modules=["gate_proj"]), torch.float32),
    "plain, bf16": ("qwen", LoraConfig(**QWEN), BF16),
    "dora, bf16": ("qwen", LoraConfig(use_dora=True, **QWEN), BF16),
    "loha, bf16": ("qwen", LoHaConfig(r=3, alpha=5, target_modules=["q_proj"]), BF16),
    "embedding, bf16": ("qwen", LoraConfig(r=3, target_modules=["embed_tokens"]), BF16),
    "whole modules, bf16": ("qwen", LoraConfig(modules_to_save=["lm_head"], **QWEN), BF16),
    "gpt2": ("gpt2", LoraConfig(**GPT2), torch.float32),
    "gpt2, setting corrected by PEFT": ("gpt2", LoraConfig(**GPT2 | {"fan_in_fan_out": False}), torch.float32),
    "gpt2, bias of B, rslora": ("gpt2", LoraConfig(lora_bias=True, use_rslora=True, **GPT2), torch.float32),
    "gpt2, all biases": ("gpt2", LoraConfig(bias="all", **GPT2), torch.float32),
    "gpt2, dora": ("gpt2", LoraConfig(use_dora=True, **GPT2), torch.float32),
    "gpt2, positions": ("gpt2", LoraConfig(r=3, target_modules=["c_fc", "wpe"], fan_in_fan_out=True), torch.float32),
}
#: of changes of size 1 to 10 that went through float32 weights; every mistake tried is above 1e-2
MAX_ERROR = 1e-5


@pytest.mark.parametrize("name", CASES)
def test_every_tensor_changes_as_in_pefts_merge(name: str, lab: Any, bases: dict[str, Path]) -> None:
    base, config, dtype = CASES[name]
    folder = lab.adapter(bases[base], config, dtype)
    truth = lab.merged_minus_base(bases[base], folder)
    adapter = Adapter.open(folder, Checkpoint.open(bases[base]))
    changed = {tensor for tensor, change in truth.items() if bool(change.any())}
    assert changed
    assert set(adapter.shapes) == changed
    assert adapter.skipped == ()
    for tensor in changed:
        delta = adapter.delta(tensor)
        assert delta.shape == adapter.shapes[tensor] == tuple(truth[tensor].shape)
        error = (delta.dense().double() - truth[tensor]).abs().max()
        assert error < MAX_ERROR, tensor


def test_low_rank_changes_stay_low_rank(lab: Any, bases: dict[str, Path]) -> None:
    """A LoRA is never expanded, not even where PEFT saved a copy of the embedding beside it; LoHa and DoRA have to be."""
    kinds = {
        LowRank: LoraConfig(r=3, target_modules=["q_proj", "embed_tokens", "lm_head"]),
        Dense: LoraConfig(r=3, use_dora=True, target_modules=["q_proj", "embed_tokens"]),
    }
    for kind, config in kinds.items():
        adapter = Adapter.open(lab.adapter(bases["qwen"], config), Checkpoint.open(bases["qwen"]))
        assert {type(adapter.delta(tensor)) for tensor in adapter.shapes} == {kind}
        assert not adapter.is_plain
    assert Adapter.open(lab.adapter(bases["qwen"], LoraConfig(**QWEN))).is_plain
    transposed = lab.adapter(bases["gpt2"], LoraConfig(**GPT2))
    assert not Adapter.open(transposed, Checkpoint.open(bases["gpt2"])).is_plain, "its factors would have to change places"
    assert Adapter.open(transposed).is_plain, "without the base no matrix is transposed: every adapter is read as PEFT stores it"


def test_the_base_is_needed_only_where_the_change_depends_on_it(lab: Any, bases: dict[str, Path]) -> None:
    plain = lab.adapter(bases["qwen"], LoraConfig(**QWEN))
    alone, checked = Adapter.open(plain), Adapter.open(plain, Checkpoint.open(bases["qwen"]))
    assert alone.shapes == checked.shapes
    for tensor in alone.shapes:
        assert torch.equal(alone.delta(tensor).dense(), checked.delta(tensor).dense())


def tied_cases() -> dict[str, tuple[str, LoraConfig]]:
    tied: dict[str, Any] = {"r": 3, "lora_alpha": 5, "ensure_weight_tying": True}
    return {
        "embedding": ("tied", LoraConfig(r=3, lora_alpha=5, target_modules=["embed_tokens"])),
        "head": ("tied", LoraConfig(r=3, lora_alpha=5, target_modules=["lm_head"])),
        "both, tied": ("tied", LoraConfig(target_modules=["embed_tokens"], **tied)),
        "both whole, tied": ("tied", LoraConfig(target_modules=["q_proj"], modules_to_save=["embed_tokens"], **tied)),
        "gpt2's embedding": ("gpt2", LoraConfig(r=3, target_modules=["c_fc", "wte"], fan_in_fan_out=True)),
        "gpt2's head beside transposed matrices": ("gpt2", LoraConfig(r=3, target_modules=["c_attn", "c_proj", "lm_head"], fan_in_fan_out=True)),
    }


@pytest.mark.parametrize("name", tied_cases())
def test_on_a_tied_base_the_change_is_what_the_adapter_does_when_it_runs(name: str, lab: Any, bases: dict[str, Path]) -> None:
    """PEFT's merge is no oracle here: it adds to the shared tensor once for each module that it wraps. Outputs are compared."""
    base, config = tied_cases()[name]
    folder = lab.adapter(bases[base], config)
    adapter = Adapter.open(folder, Checkpoint.open(bases[base]))
    model = lab.load(bases[base])
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    weights = dict(model.named_parameters())
    for tensor in adapter.shapes:
        weights[tensor].data += adapter.delta(tensor).dense()
    if config.ensure_weight_tying:
        assert "lm_head.weight" not in adapter.shapes, "the embedding under another name would count twice"
        model.lm_head.weight.data = weights["model.embed_tokens.weight"].data
    tokens = torch.arange(8)[None]
    with torch.no_grad():
        before, expected = lab.load(bases[base])(tokens).logits, lab.applied(bases[base], folder)(tokens).logits
        found = model(tokens).logits
    assert not torch.allclose(before, expected, atol=0.1)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_one_setting_for_matrices_of_two_kinds_is_not_trusted(lab: Any, bases: dict[str, Path]) -> None:
    """PEFT saves fan_in_fan_out as the last module had it; a square matrix would be read the wrong way round without a word."""
    folder = lab.adapter(bases["gpt2"], tied_cases()["gpt2's head beside transposed matrices"][1])
    assert json.loads((folder / "adapter_config.json").read_text())["fan_in_fan_out"] is False
    file = load_file(folder / "adapter_model.safetensors")
    prefix = "base_model.model.transformer.h.0.attn.c_proj.lora_"
    delta = Adapter.open(folder, Checkpoint.open(bases["gpt2"])).delta("transformer.h.0.attn.c_proj.weight").dense()
    torch.testing.assert_close(delta, (file[f"{prefix}B.weight"] @ file[f"{prefix}A.weight"] * 8 / 3).T)


def test_an_embedding_that_the_adapter_brings_along_counts(lab: Any, bases: dict[str, Path]) -> None:
    """With an embedding among its targets PEFT saves a copy of the base's, and loads it: where it differs, it is part of the change."""
    folder = lab.adapter(bases["qwen"], LoraConfig(r=3, target_modules=["embed_tokens"]))
    moved = _shift(folder, "base_model.model.model.embed_tokens.base_layer.weight")
    truth = lab.merged_minus_base(bases["qwen"], folder)["model.embed_tokens.weight"]
    adapter = Adapter.open(folder, Checkpoint.open(bases["qwen"]))
    found = adapter.delta("model.embed_tokens.weight").dense()
    assert float(moved.abs().sum()) > 0
    assert (found.double() - truth).abs().max() < MAX_ERROR


def _shift(folder: Path, key: str) -> Tensor:
    file = folder / "adapter_model.safetensors"
    tensors = load_file(file)
    step = torch.randn(tensors[key].shape, generator=torch.Generator().manual_seed(7))
    tensors[key] = tensors[key] + step
    save_file(tensors, file)
    return step


def test_pissa_once_it_is_converted(lab: Any, bases: dict[str, Path]) -> None:
    """PiSSA changes the base as well; converted as the refusal advises, it is an ordinary LoRA of twice the rank."""
    start = lab.place()
    config = LoraConfig(init_lora_weights="pissa", **QWEN)
    folder = lab.adapter(bases["qwen"], config, path_initial_model_for_weight_conversion=str(start))
    adapter = Adapter.open(folder, Checkpoint.open(bases["qwen"]))
    truth = lab.merged_minus_base(bases["qwen"], folder)
    assert adapter.config.rank == 6
    for tensor in adapter.shapes:
        assert (adapter.delta(tensor).dense().double() - truth[tensor]).abs().max() < MAX_ERROR


def test_an_older_spelling_of_magnitudes(lab: Any, bases: dict[str, Path]) -> None:
    folder = lab.adapter(bases["qwen"], LoraConfig(use_dora=True, **QWEN))
    base = Checkpoint.open(bases["qwen"])
    today = {tensor: Adapter.open(folder, base).delta(tensor).dense() for tensor in Adapter.open(folder, base).shapes}
    file = folder / "adapter_model.safetensors"
    save_file({key + ".weight" * key.endswith("vector"): values for key, values in load_file(file).items()}, file)
    old = Adapter.open(folder, base)
    assert set(old.shapes) == set(today)
    assert all(torch.equal(old.delta(tensor).dense(), values) for tensor, values in today.items())


def test_a_classifiers_head_is_listed(make_adapter: Any, make_checkpoint: Any) -> None:
    """What the base has no place for cannot be compared; it is not left out without a word."""
    torch.manual_seed(0)
    base = Checkpoint.open(make_checkpoint("base", {"model.a.weight": torch.randn(4, 6)}))
    tensors = {"model.a.lora_A.weight": torch.randn(2, 6), "model.a.lora_B.weight": torch.randn(4, 2), "score.weight": torch.randn(3, 6)}
    adapter = Adapter.open(make_adapter("classifier", tensors), base)
    assert [(skip.tensor, skip.reason) for skip in adapter.skipped] == [("score.weight", "only the adapter has it")]
    assert set(adapter.shapes) == {"model.a.weight"}


def test_a_classifiers_head_without_a_base_leaves_the_factors_readable(make_adapter: Any) -> None:
    """Half of the real adapters have one; PEFT before 0.16 wrote the base's own head beside it, which is no second copy."""
    torch.manual_seed(0)
    factors = {"model.a.lora_A.weight": torch.randn(2, 6), "model.a.lora_B.weight": torch.randn(4, 2)}
    heads = {"score.modules_to_save.weight": torch.randn(3, 6), "score.original_module.weight": torch.randn(3, 6)}
    adapter = Adapter.open(make_adapter("classifier", factors | heads))
    assert [(skip.tensor, skip.reason) for skip in adapter.skipped] == [("score.weight", "it depends on the base, and none is given")]
    torch.testing.assert_close(adapter.delta("model.a.weight").dense(), 2 * factors["model.a.lora_B.weight"] @ factors["model.a.lora_A.weight"])


def test_the_saved_head_counts_not_the_original_beside_it(make_adapter: Any, make_checkpoint: Any) -> None:
    base = Checkpoint.open(make_checkpoint("base", {"model.a.weight": torch.zeros(4, 6), "score.weight": torch.ones(3, 6)}))
    heads = {"score.modules_to_save.weight": torch.full((3, 6), 1.5), "score.original_module.weight": torch.ones(3, 6)}
    adapter = Adapter.open(make_adapter("classifier", heads), base)
    assert torch.equal(adapter.delta("score.weight").dense(), torch.full((3, 6), 0.5))


def test_two_adapters_in_one_file_are_refused(make_adapter: Any) -> None:
    factors = {f"model.{module}.lora_{part}.{name}.weight": torch.ones(2, 2) for module, name in (("a", "one"), ("b", "two")) for part in "AB"}
    with pytest.raises(BadInput, match=r"expected the tensors of one adapter, found two \(one and two\); save each adapter by itself"):
        Adapter.open(make_adapter("both", factors))


def test_its_name_and_its_source(lab: Any, bases: dict[str, Path]) -> None:
    folder = lab.adapter(bases["qwen"], LoraConfig(**QWEN))
    adapter = Adapter.open(folder)
    assert adapter.name == folder.name
    assert set(adapter.source().sha256) == {"adapter_model.safetensors", "adapter_config.json"}
    assert adapter.config.base_name == str(bases["qwen"])
