"""Models and adapters whose files have other names than the models: what transformers and PEFT do with them is what is read."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from peft import LoraConfig
from safetensors.torch import load_file, save_file
from torch import Tensor

from unmerge.checkpoints import Adapter, Checkpoint, Difference

TEXT = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 40}
SIGHT = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 8, "patch_size": 4}
MAX_ERROR = 1e-5


def written(folder: Path, model: Any, **settings: Any) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save_pretrained(folder, **settings)
    return folder


def drawn(model: Any, seed: int) -> Any:
    torch.manual_seed(seed)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data.normal_(0, 0.3)
    return model


def trained(lab: Any, kind: Any, base: Path, config: LoraConfig) -> tuple[Path, Path]:
    """(an adapter of random weights, the base with it merged), both as PEFT writes them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = drawn(peft.get_peft_model(kind.from_pretrained(base), config), 1)
        return written(lab.place(), model), written(lab.place(), model.merge_and_unload())


def stored_difference(target: Path, base: Path) -> dict[str, Tensor]:
    after, before = load_file(target / "model.safetensors"), load_file(base / "model.safetensors")
    return {name: after[name].double() - before[name].double() for name in before}


def agrees(adapter: Adapter, truth: Mapping[str, Tensor]) -> None:
    """The adapter changes the tensors that the merge changes, and by as much."""
    assert set(adapter.shapes) == {name for name, change in truth.items() if bool(change.abs().max() > MAX_ERROR)}
    for tensor in adapter.shapes:
        assert (adapter.delta(tensor).dense().double() - truth[tensor]).abs().max() < MAX_ERROR, tensor


def moved(folder: Path, names: Callable[[str], str], file: str = "model.safetensors") -> Path:
    """The same folder with its tensors under other names."""
    save_file({names(name): values for name, values in load_file(folder / file).items()}, folder / file, metadata={"format": "pt"})
    return folder


def gemma3() -> Any:
    settings = transformers.Gemma3Config(text_config={**TEXT, "head_dim": 8}, vision_config=SIGHT, mm_tokens_per_image=4)
    return transformers.Gemma3ForConditionalGeneration, settings


def llava() -> Any:
    return transformers.LlavaForConditionalGeneration, transformers.LlavaConfig(
        text_config=transformers.LlamaConfig(**TEXT), vision_config=transformers.CLIPVisionConfig(**SIGHT)
    )


def qwen2_5_vl() -> Any:
    rope = {"type": "mrope", "rope_type": "default", "mrope_section": [1, 1, 2]}
    sight = {"depth": 1, "hidden_size": 16, "intermediate_size": 24, "num_heads": 2, "out_hidden_size": 16, "fullatt_block_indexes": [0]}
    settings = transformers.Qwen2_5_VLConfig(text_config={**TEXT, "rope_scaling": rope}, vision_config=sight, tie_word_embeddings=False)
    return transformers.Qwen2_5_VLForConditionalGeneration, settings


@pytest.mark.parametrize("model", [gemma3, llava, qwen2_5_vl], ids=lambda made: made.__name__)
def test_a_vision_language_adapter(model: Callable[[], Any], lab: Any) -> None:
    """Language model and vision tower of one width: both adapted, neither taken for the other."""
    kind, settings = model()
    base = written(lab.place(), drawn(kind(settings), 0))
    config = LoraConfig(r=2, target_modules=["q_proj", "v_proj"] if model is not qwen2_5_vl else ["q_proj", "qkv", "down_proj"])
    folder, target = trained(lab, kind, base, config)
    adapter = Adapter.open(folder, Checkpoint.open(base))
    agrees(adapter, stored_difference(target, base))
    assert sum(names.tensors for names in adapter.matched_names) == len(adapter.shapes), "all of them have other names in the file"


def test_a_file_of_transformers_4_with_an_adapter_of_transformers_5(lab: Any) -> None:
    """``vision_tower.vision_model.encoder``, as LLaVA and Gemma-3 lie on the hub, is ``model.vision_tower.encoder`` in memory."""
    kind, settings = llava()
    base = written(lab.place(), drawn(kind(settings), 0))
    folder, target = trained(lab, kind, base, LoraConfig(r=2, target_modules=["q_proj", "fc1"]))
    for place in (base, target):
        moved(place, lambda name: name if ".vision_model." in name else name.replace("vision_tower.", "vision_tower.vision_model."))
    adapter = Adapter.open(folder, Checkpoint.open(base))
    assert any(tensor.startswith("vision_tower.vision_model.encoder.layers.1.mlp.fc1") for tensor in adapter.shapes)
    agrees(adapter, stored_difference(target, base))


def mixtral() -> Any:
    return transformers.MixtralConfig(num_local_experts=3, **TEXT)


def qwen3_moe() -> Any:
    return transformers.Qwen3MoeConfig(num_experts=3, num_experts_per_tok=2, moe_intermediate_size=12, head_dim=8, **TEXT)


@pytest.mark.parametrize("fused", ["target", "base", "both", "neither"])
@pytest.mark.parametrize("settings", [mixtral, qwen3_moe], ids=lambda made: made.__name__)
def test_experts_in_one_tensor_or_in_many(settings: Callable[[], Any], fused: str, lab: Any) -> None:
    """transformers writes both forms of one model: every expert's change is what it is in the form with a tensor an expert, to the bit."""
    before, after = lab.model(settings(), 0), lab.model(settings(), 0)
    torch.manual_seed(2)
    for parameter in after.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    base = written(lab.place(), before, save_original_format=fused not in ("base", "both"))
    target = written(lab.place(), after, save_original_format=fused not in ("target", "both"))
    vector = Difference.between("t", Checkpoint.open(target), Checkpoint.open(base))
    truth = stored_difference(written(lab.place(), after), written(lab.place(), before))
    assert vector.skipped == ()
    assert len(vector.shapes) == len(truth)
    law = {"w1": "gate_proj", "w2": "down_proj", "w3": "up_proj", "block_sparse_moe": "mlp"} if fused in ("base", "both") else {}
    for name, change in truth.items():
        here = ".".join(law.get(word, word) for word in name.split("."))
        assert torch.equal(vector.delta(here).dense().double(), change.float().double()), name
    one_form = fused in ("both", "neither")
    assert bool(vector.matched_names) != one_form


def test_an_adapter_to_single_experts_on_a_fused_base(lab: Any) -> None:
    """As PEFT wrote them under transformers 4; merged into the file with a tensor an expert, which transformers then loads and writes fused."""
    model = lab.model(mixtral(), 0)
    base, original = written(lab.place(), model, save_original_format=False), written(lab.place(), model)
    torch.manual_seed(1)
    kinds = {"w1": (24, 16), "w2": (16, 24), "w3": (24, 16)}
    modules = {
        f"model.layers.{layer}.block_sparse_moe.experts.{expert}.{w}": shape for layer in (0, 1) for expert in (0, 2) for w, shape in kinds.items()
    }
    factors = {module: (torch.randn(out, 2), torch.randn(2, into)) for module, (out, into) in modules.items()}
    folder = lab.place()
    folder.mkdir()
    keys = {f"base_model.model.{module}.lora_{part}.weight": values for module, (b, a) in factors.items() for part, values in (("A", a), ("B", b))}
    save_file(keys, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 2}))
    weights = load_file(original / "model.safetensors")
    save_file(
        {name: values + (factors[name[:-7]][0] @ factors[name[:-7]][1] if name[:-7] in factors else 0) for name, values in weights.items()},
        original / "model.safetensors",
        metadata={"format": "pt"},
    )
    target = written(lab.place(), lab.load(original), save_original_format=False)
    opened = Checkpoint.open(base)
    adapter, vector = Adapter.open(folder, opened), Difference.between("t", Checkpoint.open(target), opened)
    assert len(adapter.shapes) == len(modules)
    agrees(adapter, {name: vector.delta(name).dense().double() for name in vector.shapes})


def bloom() -> Any:
    return transformers.BloomConfig(vocab_size=40, hidden_size=16, n_layer=2, n_head=2)


def gpt2() -> Any:
    return transformers.GPT2Config(vocab_size=40, n_embd=16, n_layer=2, n_head=2, n_positions=8, bos_token_id=0, eos_token_id=1)


@pytest.mark.parametrize("settings", [bloom, gpt2], ids=lambda made: made.__name__)
def test_a_base_as_it_lies_on_the_hub(settings: Callable[[], Any], lab: Any) -> None:
    """Without ``transformer.``, which adapter and merge have."""
    base = lab.base(settings())
    modules = ["query_key_value", "dense"] if settings is bloom else ["c_attn", "c_proj", "c_fc"]
    folder, target = trained(lab, transformers.AutoModelForCausalLM, base, LoraConfig(r=2, target_modules=modules))
    truth = {name.removeprefix("transformer."): change for name, change in stored_difference(target, base).items()}
    opened = Checkpoint.open(moved(base, lambda name: name.removeprefix("transformer.")))
    agrees(Adapter.open(folder, opened), truth)
    vector = Difference.between("t", Checkpoint.open(target), opened)
    assert set(vector.shapes) == set(truth)
    assert all(torch.allclose(vector.delta(name).dense().double(), truth[name], atol=1e-6) for name in truth)
    assert [(names.own, names.reference, names.tensors) for names in vector.matched_names] == [("transformer", "", len(truth))]


@pytest.mark.parametrize("said", [True, False], ids=["said", "not said"])
def test_fan_in_fan_out_is_not_what_decides(said: bool, lab: Any, bases: dict[str, Path]) -> None:
    """8 of 14 real GPT-2 adapters say it wrong, and PEFT mends it on loading; on square modules nothing else would show it."""
    folder = lab.adapter(bases["gpt2"], LoraConfig(r=3, target_modules=["attn.c_proj"], fan_in_fan_out=True))
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"fan_in_fan_out": said}))
    adapter = Adapter.open(folder, Checkpoint.open(bases["gpt2"]))
    assert adapter.shapes == {f"transformer.h.{layer}.attn.c_proj.weight": (16, 16) for layer in (0, 1)}
    agrees(adapter, lab.merged_minus_base(bases["gpt2"], folder))


def test_fan_in_fan_out_of_linear_modules(lab: Any, bases: dict[str, Path]) -> None:
    folder = lab.adapter(bases["qwen"], LoraConfig(r=3, target_modules=["q_proj", "o_proj"]))
    truth = lab.merged_minus_base(bases["qwen"], folder)
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"fan_in_fan_out": True}))
    agrees(Adapter.open(folder, Checkpoint.open(bases["qwen"])), truth)


def peft_model(lab: Any, base: Path, name: str) -> tuple[Any, Path]:
    model = drawn(peft.get_peft_model(lab.load(base), LoraConfig(r=3, target_modules=["q_proj", "embed_tokens"]), adapter_name=name), 1)
    return model, written(lab.place(), model) / (name if name != "default" else "")


@pytest.mark.parametrize("name", ["default", "mine"])
@pytest.mark.parametrize("wrapper", ["", "module.", "_orig_mod."], ids=["plain", "DDP", "compiled"])
def test_the_state_dict_of_a_running_model(wrapper: str, name: str, lab: Any, bases: dict[str, Path]) -> None:
    """It has the adapter's name in its keys, which save_pretrained takes out, and those of what wraps the model."""
    model, folder = peft_model(lab, bases["qwen"], name)
    state = {wrapper + key: values.detach().clone() for key, values in model.state_dict().items() if "lora_" in key}
    base = Checkpoint.open(bases["qwen"])
    saved = Adapter.open(folder, base)
    running = lab.place()
    shutil.copytree(folder, running)
    save_file(state, running / "adapter_model.safetensors")
    read = Adapter.open(running, base)
    assert read.shapes == saved.shapes
    assert all(torch.equal(read.delta(tensor).dense(), saved.delta(tensor).dense()) for tensor in saved.shapes)
    assert saved.matched_names == ()
    assert [names.own for names in read.matched_names] == [f"*.{name}.*", *([wrapper.rstrip(".") + ".base_model.model"] if wrapper else [])]


@pytest.mark.parametrize("kind", ["t5", "mamba", "gpt2", "qwen"])
@pytest.mark.parametrize("rows", [44, 36], ids=["more rows", "fewer rows"])
def test_a_vocabulary_of_another_size(rows: int, kind: str, lab: Any) -> None:
    """The rows that both have are compared, whatever the embedding is called; the others are told."""
    loaders = {"t5": transformers.AutoModelForSeq2SeqLM}
    settings = {
        "t5": transformers.T5Config(vocab_size=40, d_model=16, d_kv=8, d_ff=24, num_layers=2, num_heads=2),
        "mamba": transformers.MambaConfig(vocab_size=40, hidden_size=16, num_hidden_layers=2, state_size=4),
        "gpt2": gpt2(),
        "qwen": transformers.Qwen2Config(**TEXT, tie_word_embeddings=False),
    }[kind]
    loader = loaders.get(kind, transformers.AutoModelForCausalLM)
    base = written(lab.place(), drawn(loader.from_config(settings), 0))
    model = loader.from_pretrained(base)
    model.resize_token_embeddings(rows)
    for parameter in model.parameters():
        parameter.data += 0.25
    target = written(lab.place(), model)
    opened = Checkpoint.open(base)
    vector = Difference.between("t", Checkpoint.open(target), opened)
    embeddings = {"t5": ["shared.weight"], "mamba": ["backbone.embeddings.weight"], "gpt2": ["transformer.wte.weight"]}
    expected = embeddings.get(kind, ["lm_head.weight", "model.embed_tokens.weight"])
    assert vector.skipped == ()
    assert set(vector.shapes) == set(opened.shapes)
    most, least, side = max(rows, 40), min(rows, 40), "target" if rows > 40 else "base"
    assert [(skip.tensor, skip.reason) for skip in vector.left_rows] == [
        (name, f"rows {least} to {most - 1} of {most}: only the {side} has them, and the {least} that both have are compared") for name in expected
    ]
    for name in expected:
        assert vector.shapes[name] == (least, 16)
        torch.testing.assert_close(vector.delta(name).dense(), torch.full((least, 16), 0.25))


CASES: dict[str, LoraConfig] = {
    "saved whole": LoraConfig(r=3, target_modules=["q_proj"], modules_to_save=["embed_tokens", "lm_head"]),
    "lora": LoraConfig(r=3, target_modules=["embed_tokens", "lm_head"]),
    "dora of the head": LoraConfig(r=3, target_modules=["lm_head"], use_dora=True),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("rows", [44, 36], ids=["more rows", "fewer rows"])
def test_an_adapter_trained_on_a_resized_vocabulary(rows: int, name: str, lab: Any, bases: dict[str, Path], qwen_config: Callable[..., Any]) -> None:
    """Against PEFT's merge into the resized model, on the rows that the base has as well."""
    base = lab.base(qwen_config(vocab_size=40))
    model = lab.load(base)
    model.resize_token_embeddings(rows)
    larger = written(lab.place(), model)
    folder = lab.adapter(larger, CASES[name])
    truth = {tensor: change[:40] if change.shape[0] == rows else change for tensor, change in lab.merged_minus_base(larger, folder).items()}
    adapter = Adapter.open(folder, Checkpoint.open(base))
    assert adapter.skipped == ()
    vocabulary = {"model.embed_tokens.weight", "lm_head.weight"} & set(adapter.shapes)
    assert {skip.tensor for skip in adapter.left_rows} == vocabulary
    assert vocabulary
    for tensor in adapter.shapes:
        assert (adapter.delta(tensor).dense().double() - truth[tensor]).abs().max() < MAX_ERROR, tensor
        assert adapter.delta(tensor).shape == adapter.shapes[tensor] == tuple(truth[tensor].shape)
    changed = {tensor for tensor, change in truth.items() if bool(change.abs().max() > MAX_ERROR)}
    assert changed <= set(adapter.shapes)
