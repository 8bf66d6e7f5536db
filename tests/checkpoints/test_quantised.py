"""Quantised checkpoints are refused with a way out that works: every call that is printed is run here, on a model of its format."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor

from unmerge.checkpoints import Checkpoint, Difference
from unmerge.checkpoints.quantised import FORMATS
from unmerge.core.errors import BadInput

EXPECTED = "expected weights as floating-point numbers, found "
ORIGINAL = "give the 16-bit checkpoint that it was quantised from"
ODD = "since transformers dequantises only sides that are multiples of 128"
PACKED = torch.zeros(4, 3, dtype=torch.int8)
FLOATS = torch.ones(4, 3)
CALLS = {scheme.method: scheme.call for scheme in FORMATS if scheme.call}


def refusal(folder: Path) -> str:
    with pytest.raises(BadInput) as caught:
        Checkpoint.open(folder)
    return str(caught.value).replace(str(folder), "HERE")


CASES: dict[str, tuple[dict[str, Tensor], dict[str, Any], str]] = {
    "gptq": (
        {"a.qweight": PACKED.int(), "a.scales": torch.ones(3)},
        {"quantization_config": {"quant_method": "gptq", "bits": 4}},
        f"HERE, tensor a.qweight: {EXPECTED}a quantised checkpoint (gptq); {ORIGINAL}",
    ),
    "gptq without a configuration": (
        {"a.qweight": PACKED.int(), "a.g_idx": torch.zeros(3, dtype=torch.int32)},
        {},
        f"HERE, tensor a.g_idx: {EXPECTED}a quantised checkpoint (gptq); {ORIGINAL}",
    ),
    "compressed-tensors": (
        {"a.weight_packed": PACKED.int(), "a.weight_scale": torch.ones(4, 1)},
        {"quantization_config": {"quant_method": "compressed-tensors"}},
        f"HERE, tensor a.weight_packed: {EXPECTED}a quantised checkpoint (compressed-tensors); {ORIGINAL}",
    ),
    "torchao": (
        {"a._weight_qdata": PACKED, "a._weight_scale": torch.ones(4, 1)},
        {"quantization_config": {"quant_method": "torchao"}},
        f"HERE, tensor a._weight_qdata: {EXPECTED}a quantised checkpoint (torchao); {ORIGINAL}",
    ),
    "mlx": (
        {"a.weight": PACKED.to(torch.uint32), "a.scales": torch.ones(4, 1), "a.biases": torch.ones(4, 1)},
        {"quantization": {"group_size": 64, "bits": 4}},
        f"HERE, tensor a.biases: {EXPECTED}a quantised checkpoint (mlx); {ORIGINAL}",
    ),
    "bitsandbytes, 4 bits, by a tensor's name": (
        {"a.weight": PACKED.to(torch.uint8), "a.weight.absmax": torch.ones(1)},
        {},
        f"HERE, tensor a.weight.absmax: {EXPECTED}a quantised checkpoint (bitsandbytes); dequantise it first: {CALLS['bitsandbytes']}",
    ),
    "bitsandbytes, 8 bits": (
        {"a.weight": PACKED, "a.SCB": torch.ones(4)},
        {"quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True}},
        f"HERE, tensor a.SCB: {EXPECTED}a quantised checkpoint (bitsandbytes); dequantise it first: {CALLS['bitsandbytes']}",
    ),
    "a matrix of integers": (
        {"a.weight": PACKED, "b.weight": torch.ones(3)},
        {},
        f"HERE, tensor a.weight: {EXPECTED}a quantised checkpoint (I8 values); {ORIGINAL}",
    ),
    "a matrix of integers and a configuration without a method": (
        {"a.weight": PACKED},
        {"quantization_config": {"load_in_8bit": True}},
        f"HERE, tensor a.weight: {EXPECTED}a quantised checkpoint (unknown method); {ORIGINAL}",
    ),
    "eight-bit floats and a configuration": (
        {"a.weight": FLOATS.to(torch.float8_e4m3fn)},
        {"quantization_config": {"quant_method": "other"}},
        f"HERE, tensor a.weight: {EXPECTED}a quantised checkpoint (other); {ORIGINAL}",
    ),
    "fp8 of sides that transformers dequantises wrongly": (
        {"a.weight": torch.ones(520, 128).to(torch.float8_e4m3fn), "a.weight_scale_inv": torch.ones(5, 1)},
        {"quantization_config": {"quant_method": "fp8"}},
        f"HERE, tensor a.weight_scale_inv: {EXPECTED}a quantised checkpoint (fp8); {ORIGINAL}, {ODD}",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_quantised_checkpoint(name: str, make_checkpoint: Any) -> None:
    tensors, config, text = CASES[name]
    assert refusal(make_checkpoint("quantised", tensors, config or {"model_type": "qwen2"})) == text


@pytest.mark.parametrize("settings", [{"quant_method": "bitsandbytes", "load_in_4bit": True}, {"load_in_8bit": True}, "int4"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_a_configuration_that_was_left_behind(settings: Any, dtype: torch.dtype, make_checkpoint: Any) -> None:
    """Training in four bits leaves it in the configuration of what is merged back into sixteen."""
    left = Checkpoint.open(make_checkpoint("left", {"a.weight": FLOATS.to(dtype)}, {"quantization_config": settings}))
    method = settings.get("quant_method", "unknown method") if isinstance(settings, dict) else "unknown method"
    assert left.notes == (f"config.json still calls left quantised ({method}); its weights are not, and were read",)
    plain = Checkpoint.open(make_checkpoint("plain", {"a.weight": FLOATS.to(dtype)}))
    assert plain.notes == ()
    assert not Difference("t", left, plain).delta("a.weight").values.any()


def quantise_fp8(folder: Path, settings: dict[str, Any]) -> dict[str, Tensor]:
    """Rewrite a checkpoint in FP8 with scales of blocks of 128, as DeepSeek's; returns what it says."""
    truth, stored = load_file(folder / "model.safetensors"), {}
    for name, values in truth.items():
        if not name.endswith("_proj.weight"):
            stored[name] = values
            continue
        blocks = values.float().unflatten(1, (-1, 128)).unflatten(0, (-1, 128))
        scale = blocks.abs().amax((1, 3)) / 448
        packed = (blocks / scale[:, None, :, None]).to(torch.float8_e4m3fn)
        truth[name] = (packed.float() * scale[:, None, :, None]).reshape(values.shape).bfloat16()
        stored |= {name: packed.reshape(values.shape), f"{name}_scale_inv": scale}
    settings |= {"quant_method": "fp8", "weight_block_size": [128, 128], "activation_scheme": "dynamic"}
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    return truth


def quantise_mxfp4(folder: Path, settings: dict[str, Any]) -> dict[str, Tensor]:
    """Rewrite the experts in MXFP4, as gpt-oss has them: 32 numbers of four bits and an exponent; returns what they say."""
    table = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6, 0, -0.5, -1, -1.5, -2, -3, -4, -6])
    truth, stored = load_file(folder / "model.safetensors"), {}
    generator = torch.Generator().manual_seed(0)
    for name, values in truth.items():
        if not name.endswith(("gate_up_proj", "down_proj")):
            stored[name] = values
            continue
        experts, into, out = values.shape
        blocks = torch.randint(0, 256, (experts, out, into // 32, 16), dtype=torch.uint8, generator=generator)
        scales = torch.randint(120, 128, (experts, out, into // 32), dtype=torch.uint8, generator=generator)
        numbers = torch.stack([table[(blocks & 15).long()], table[(blocks >> 4).long()]], -1).flatten(-2)
        truth[name] = (numbers * torch.exp2(scales.float() - 127)[..., None]).flatten(2).transpose(1, 2).bfloat16()
        stored |= {f"{name}_blocks": blocks, f"{name}_scales": scales}
    kept = ["model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"]
    settings |= {"quant_method": "mxfp4", "modules_to_not_convert": kept}
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    return truth


def qwen() -> transformers.PretrainedConfig:
    sizes = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2}
    return transformers.Qwen2Config(vocab_size=32, tie_word_embeddings=False, **sizes)


def gpt_oss() -> transformers.PretrainedConfig:
    sizes = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32}
    return transformers.GptOssConfig(vocab_size=32, num_local_experts=2, num_experts_per_tok=1, tie_word_embeddings=False, **sizes)


REAL = {"fp8": (qwen, quantise_fp8), "mxfp4": (gpt_oss, quantise_mxfp4)}


def run(call: str, given: Path, out: Path) -> None:
    """A printed call, with folders in the place of its dots."""
    source = call.replace("...", repr(str(given)), 1).replace("...", repr(str(out)), 1)
    exec(f"from transformers import *\n{source}", {})


@pytest.mark.parametrize("method", REAL)
def test_the_printed_way_out_writes_what_is_read(method: str, lab: Any, tmp_path: Path) -> None:
    """The file that the printed call writes has the format's own numbers, every one; the default way of saving is told by its marks."""
    config, quantise = REAL[method]
    folder = lab.place()
    lab.model(config()).bfloat16().save_pretrained(folder)
    raw = json.loads((folder / "config.json").read_text())
    truth = quantise(folder, raw.setdefault("quantization_config", {}))
    (folder / "config.json").write_text(json.dumps(raw))
    text = refusal(folder)
    assert f"a quantised checkpoint ({method})" in text
    call = re.search(r"AutoModel.*", text)
    assert call, text
    run(call[0], folder, tmp_path / "dequantised")
    opened = Checkpoint.open(tmp_path / "dequantised")
    assert opened.shapes.keys() == truth.keys()
    assert all(torch.equal(opened.read(name), truth[name]) for name in truth)
    run(call[0].replace(", save_original_format=False", ""), folder, tmp_path / "resaved")
    said = {"fp8": "FP8 weights without the quantization_config that they need", "mxfp4": "dequantised experts under the names of packed ones"}
    text = refusal(tmp_path / "resaved")
    assert said[method] in text
    assert text.endswith(f"load the checkpoint that it was made from, and write it so: {call[0]}")


@pytest.mark.parametrize("bits", [4, 8])
def test_the_printed_way_out_of_bitsandbytes(bits: int, lab: Any, tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    whole, folder = lab.place(), lab.place()
    lab.model(qwen()).bfloat16().save_pretrained(whole)
    settings = (
        transformers.BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
        if bits == 4
        else transformers.BitsAndBytesConfig(load_in_8bit=True)
    )
    transformers.AutoModelForCausalLM.from_pretrained(whole, quantization_config=settings).save_pretrained(folder)
    call = re.search(r"AutoModel.*", refusal(folder))
    assert call
    run(call[0], folder, tmp_path / "dequantised")
    before, after = Checkpoint.open(whole), Checkpoint.open(tmp_path / "dequantised")
    assert before.shapes == after.shapes
    name = "model.layers.0.self_attn.q_proj.weight"
    error = (after.read(name).double() - before.read(name).double()).norm() / before.read(name).double().norm()
    assert 1e-4 < error < (0.2 if bits == 4 else 0.05)


def test_the_printed_ways_out_of_pickles(lab: Any, bases: dict[str, Path], tmp_path: Path) -> None:
    """transformers and PEFT read their own pickles and write them as safetensors."""
    import peft

    folder = lab.place()
    lab.load(bases["qwen"]).save_pretrained(folder)
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    call = re.search(r"AutoModel.*", refusal(folder))
    assert call
    run(call[0], folder, tmp_path / "model")
    assert all(torch.equal(Checkpoint.open(tmp_path / "model").read(name), values) for name, values in weights.items())

    from unmerge.checkpoints import Adapter

    adapter = lab.adapter(bases["qwen"], peft.LoraConfig(r=2, target_modules=["q_proj"]))
    factors = load_file(adapter / "adapter_model.safetensors")
    (adapter / "adapter_model.safetensors").unlink()
    torch.save(factors, adapter / "adapter_model.bin")
    with pytest.raises(BadInput) as caught:
        Adapter.open(adapter)
    printed = re.search(r"PeftModel.*", str(caught.value))
    assert printed
    source = printed[0].replace("...", repr(str(adapter)), 1).replace("...", repr(str(tmp_path / "adapter")), 1)
    exec(f"from peft import PeftModel\n{source}", {"base": lab.load(bases["qwen"])})
    assert load_file(tmp_path / "adapter" / "adapter_model.safetensors").keys() == factors.keys()
    Adapter.open(tmp_path / "adapter")
