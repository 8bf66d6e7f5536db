"""Adapters that are not what they should be: each gets its one line, which says what was expected, found, where, and what to try."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from peft import LoraConfig
from safetensors.torch import load_file, save_file

from unmerge.checkpoints import Adapter, Checkpoint
from unmerge.core.errors import BadInput

MERGE = "merge it into its base (merge_and_unload) and give the checkpoint"
ADDITIVE = "expected an adapter that adds to the weights (LORA, LOHA, LOKR)"
A, B = "model.a.lora_A.weight", "model.a.lora_B.weight"


def refusal(folder: Path, base: Checkpoint | None = None) -> str:
    """The text of the refusal to open an adapter: a single line, with the place in it."""
    with pytest.raises(BadInput) as caught:
        Adapter.open(folder, base)
    text = str(caught.value)
    assert "\n" not in text
    assert str(folder) in text
    return text.replace(str(folder), "HERE")


def factors(out: int = 4, into: int = 6, rank: int = 2) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {A: torch.randn(rank, into, generator=generator), B: torch.randn(out, rank, generator=generator)}


REAL: dict[str, tuple[peft.PeftConfig, str]] = {
    "ia3": (peft.IA3Config(target_modules=["q_proj"], feedforward_modules=[]), "IA3, which multiplies the weights"),
    "oft": (peft.OFTConfig(r=2, oft_block_size=0, target_modules=["q_proj"]), "OFT, which multiplies the weights"),
    "boft": (peft.BOFTConfig(boft_block_size=4, target_modules=["q_proj"]), "BOFT, which multiplies the weights"),
    "hra": (peft.HRAConfig(r=2, target_modules=["q_proj"]), "HRA, which multiplies the weights"),
    "vera": (peft.VeraConfig(r=2, target_modules=["q_proj"]), "VERA, which is not read here"),
    "adalora": (peft.AdaLoraConfig(total_step=10, target_modules=["q_proj"]), "ADALORA, which is not read here"),
    "fourierft": (peft.FourierFTConfig(n_frequency=8, target_modules=["q_proj"]), "FOURIERFT, which is not read here"),
    "layer norms": (peft.LNTuningConfig(target_modules=["input_layernorm"]), "LN_TUNING, which is not read here"),
}


@pytest.mark.parametrize("name", REAL)
def test_types_that_do_not_add_are_refused_by_name(name: str, lab: Any, bases: dict[str, Path]) -> None:
    config, found = REAL[name]
    folder = lab.adapter(bases["qwen"], config)
    assert refusal(folder) == f"HERE/adapter_config.json: {ADDITIVE}, found {found}; {MERGE}"


@pytest.mark.parametrize("kind", ["PROMPT_TUNING", "PREFIX_TUNING", "P_TUNING"])
def test_prompts_are_refused_with_another_hint(kind: str, lab: Any, bases: dict[str, Path]) -> None:
    configs = {"PROMPT_TUNING": peft.PromptTuningConfig, "PREFIX_TUNING": peft.PrefixTuningConfig, "P_TUNING": peft.PromptEncoderConfig}
    folder = lab.adapter(bases["qwen"], configs[kind](task_type="CAUSAL_LM", num_virtual_tokens=2))
    hint = "look for it in the prompt or the cache, not in the weights"
    assert refusal(folder) == f"HERE/adapter_config.json: {ADDITIVE}, found {kind}, which leaves the weights as they are; {hint}"


@pytest.mark.parametrize("start", ["corda", "loftq", "lora_ga"])
def test_starts_that_change_the_base_are_refused(start: str, make_adapter: Any) -> None:
    folder = make_adapter("adapter", factors(), init_lora_weights=start)
    assert refusal(folder) == (
        f"HERE/adapter_config.json: expected an adapter to an unchanged base, found init_lora_weights={start}, which changes the base as well; "
        "convert it with save_pretrained(..., path_initial_model_for_weight_conversion=...)"
    )


OPTIONS: dict[str, dict[str, Any]] = {
    "use_qalora": {"use_qalora": True, "qalora_group_size": 4},
    "trainable_token_indices": {"trainable_token_indices": [1, 2]},
    "target_parameters": {"target_parameters": ["q_proj.weight"]},
    "alora_invocation_tokens": {"alora_invocation_tokens": [1]},
    "layer_replication": {"layer_replication": [(0, 2), (1, 2)]},
}


@pytest.mark.parametrize("option", OPTIONS)
def test_options_under_which_a_lora_is_more_than_its_product(option: str, lab: Any, bases: dict[str, Path]) -> None:
    settings = {"r": 2, "target_modules": ["q_proj"], "task_type": "CAUSAL_LM"} | OPTIONS[option]
    if option == "target_parameters":
        settings["target_modules"] = []
    folder = lab.adapter(bases["qwen"], LoraConfig(**settings))
    assert refusal(folder) == (
        f"HERE/adapter_config.json: expected a LoRA that adds one fixed matrix to each module, found the option {option}; {MERGE}"
    )


@pytest.mark.parametrize("kind", ["lora", "lokr", "loha"])
def test_convolutions_are_refused(kind: str, lab: Any) -> None:
    """Their factors have four dimensions; nothing is flattened by guess."""
    configs = {"lora": LoraConfig(r=2, target_modules=["0"]), "lokr": peft.LoKrConfig(r=2, target_modules=["0"], use_effective_conv2d=True)}
    configs["loha"] = peft.LoHaConfig(r=2, target_modules=["0"], use_effective_conv2d=True)
    folder = lab.place()
    peft.get_peft_model(torch.nn.Sequential(torch.nn.Conv2d(4, 4, 3)), configs[kind]).save_pretrained(folder)
    text = refusal(folder)
    assert f"expected tensors of a {kind.upper()} adapter to linear or embedding modules, found " in text
    assert "HERE/adapter_model.safetensors, tensor base_model.model.0." in text
    assert text.endswith(MERGE)


def test_another_base_by_shape(lab: Any, bases: dict[str, Path], qwen_config: Callable[..., Any]) -> None:
    wider = lab.base(qwen_config(hidden_size=32))
    folder = lab.adapter(wider, LoraConfig(r=2, target_modules=["q_proj"]))
    assert refusal(folder, Checkpoint.open(bases["qwen"])) == (
        "HERE, tensor model.layers.0.self_attn.q_proj.weight: expected a tensor of shape (16, 16) as in the base, found shape (32, 32); "
        f"this adapter is for another base ({wider}); give that one with --base"
    )


def test_another_base_by_name(lab: Any, bases: dict[str, Path], qwen_config: Callable[..., Any]) -> None:
    deeper = lab.base(qwen_config(num_hidden_layers=3))
    folder = lab.adapter(deeper, LoraConfig(r=2, target_modules=["q_proj"], layers_to_transform=[2]))
    assert refusal(folder, Checkpoint.open(bases["qwen"])) == (
        "HERE, tensor model.layers.2.self_attn.q_proj.weight: expected a tensor that the base has, found shape (16, 16); "
        f"this adapter is for another base ({deeper}); give that one with --base"
    )


def test_a_base_that_is_needed_and_missing(lab: Any, bases: dict[str, Path]) -> None:
    for config in (LoraConfig(r=2, use_dora=True, target_modules=["q_proj"]), LoraConfig(r=2, target_modules=["embed_tokens"])):
        assert "expected a base, since this part of the adapter depends on it, found none; give the base with --base" in refusal(
            lab.adapter(bases["qwen"], config)
        )


def edited(folder: Path, **settings: Any) -> Path:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))
    return folder


SETTINGS = "expected ranks of at least 1, finite alphas and patterns that are regular expressions, found "
CONFIGS: dict[str, tuple[dict[str, Any], str]] = {
    "rank zero": ({"r": 0}, SETTINGS + "rank 0; save the adapter with PEFT again"),
    "a rank in words": ({"r": "two"}, SETTINGS + "invalid literal for int() with base 10: 'two'; save the adapter with PEFT again"),
    "a rank of zero by pattern": ({"rank_pattern": {"a": 0}}, SETTINGS + "rank 0; save the adapter with PEFT again"),
    "alpha not a number": ({"lora_alpha": float("nan")}, SETTINGS + "alpha nan; save the adapter with PEFT again"),
    "alpha without end": ({"alpha_pattern": {"a": float("inf")}}, SETTINGS + "alpha inf; save the adapter with PEFT again"),
    "no regular expression": ({"alpha_pattern": {"*.a": 2}}, SETTINGS + "nothing to repeat at position 0; save the adapter with PEFT again"),
    "patterns as a list": ({"rank_pattern": ["a"]}, SETTINGS + "'list' object has no attribute 'items'; save the adapter with PEFT again"),
    "no type": ({"peft_type": None}, f"{ADDITIVE}, found NONE, which is not read here; {MERGE}"),
    "an unknown type": ({"peft_type": "TELEPATHY"}, f"{ADDITIVE}, found TELEPATHY, which is not read here; {MERGE}"),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_settings_that_make_no_sense(name: str, make_adapter: Any) -> None:
    settings, text = CONFIGS[name]
    assert refusal(edited(make_adapter("adapter", factors()), **settings)) == f"HERE/adapter_config.json: {text}"


def test_a_rank_that_is_not_the_configurations(make_adapter: Any) -> None:
    """The rank decides the scale: a wrong one would scale the adapter without a word."""
    loha = {f"model.a.hada_w{side}_{part}": torch.ones(2, 2) for side in (1, 2) for part in "ab"}
    for tensors, kind in ((factors(), "LORA"), (loha, "LOHA")):
        folder = make_adapter(kind, tensors, r=3, peft_type=kind)
        expected = (
            "HERE, tensor model.a.weight: expected rank 3 as adapter_config.json says, found rank 2; mend r or rank_pattern in the configuration"
        )
        assert refusal(folder) == expected


def linear(found: str, tensor: str, hint: str = MERGE, kind: str = "LORA") -> str:
    where = f"HERE/adapter_model.safetensors, tensor base_model.model.{tensor}"
    return f"{where}: expected tensors of a {kind} adapter to linear or embedding modules, found {found}; {hint}"


GATHER = "gather its shards (DeepSpeed ZeRO-3, FSDP) and save it again"
TENSORS: dict[str, tuple[dict[str, torch.Tensor], str]] = {
    "half a pair": ({A: torch.ones(2, 6)}, linear("the parts lora_A.weight of model.a alone", A)),
    "a bias of B alone": ({"model.a.lora_B.bias": torch.ones(4)}, linear("the parts lora_B.bias of model.a alone", "model.a.lora_B.bias")),
    "factors that do not fit": (
        {A: torch.ones(2, 6), B: torch.ones(4, 3)},
        linear("factors of shapes (4, 3) and (2, 6), which do not fit together", A, "save the adapter again"),
    ),
    "shards that were not gathered": ({A: torch.ones(0), B: torch.ones(4, 2)}, linear("shape (0,)", A, GATHER)),
    "an empty factor": ({A: torch.ones(2, 0), B: torch.ones(4, 2)}, linear("shape (2, 0)", A, GATHER)),
    "magnitudes that do not fit": (
        factors() | {"model.a.lora_magnitude_vector": torch.ones(5)},
        linear("magnitudes of shape (5,) for weights of shape (4, 6), which do not fit together", A, "save the adapter again"),
    ),
    "a part of another type": (factors() | {"model.a.lora_Q": torch.ones(2)}, linear("a tensor of another kind", "model.a.lora_Q")),
    "two copies": (
        {**factors(), "model.b.weight": torch.ones(3), "model.b.modules_to_save.weight": torch.ones(3)},
        linear("a second copy of model.b.weight", "model.b.weight"),
    ),
}


@pytest.mark.parametrize("name", TENSORS)
def test_tensors_that_make_no_adapter(name: str, make_adapter: Any) -> None:
    tensors, text = TENSORS[name]
    assert refusal(make_adapter("adapter", tensors)) == text


def test_dora_without_its_magnitudes(make_adapter: Any, make_checkpoint: Any) -> None:
    """As a plain LoRA it would be something else."""
    base = Checkpoint.open(make_checkpoint("base", {"model.a.weight": torch.ones(4, 6)}))
    expected = "expected a lora_magnitude_vector, since adapter_config.json says use_dora, found none; save the adapter again"
    assert refusal(make_adapter("adapter", factors(), use_dora=True), base) == f"HERE, tensor model.a.weight: {expected}"


def test_an_adapter_without_tensors(make_adapter: Any) -> None:
    text = refusal(make_adapter("adapter", {}))
    assert text == "HERE/adapter_model.safetensors: expected adapter tensors, found none; save the adapter again"


def test_an_adapter_of_which_nothing_is_left(make_adapter: Any, make_checkpoint: Any) -> None:
    base = Checkpoint.open(make_checkpoint("base", {"model.a.weight": torch.ones(4, 6)}))
    text = refusal(make_adapter("adapter", {"score.weight": torch.ones(2, 6)}), base)
    found = "none (score.weight is left out: only the adapter has it)"
    assert text == f"HERE/adapter_model.safetensors: expected adapter tensors, found {found}; save the adapter again"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_weights_that_are_not_finite(value: float, dtype: torch.dtype, make_adapter: Any) -> None:
    tensors = {key: values.to(dtype) for key, values in factors().items()}
    tensors[B][3, 1] = value
    folder = make_adapter("adapter", tensors)
    with pytest.raises(BadInput) as caught:
        Adapter.open(folder).delta("model.a.weight")
    where = f"{folder}/adapter_model.safetensors, tensor base_model.model.{B}"
    assert str(caught.value) == f"{where}: expected finite weights, found NaN or infinity; write or download the file again"


def test_integers_where_factors_should_be(make_adapter: Any) -> None:
    folder = make_adapter("adapter", {key: values.to(torch.int8) for key, values in factors().items()})
    with pytest.raises(BadInput, match="expected floating-point weights, found I8 values; dequantise the checkpoint first"):
        Adapter.open(folder).delta("model.a.weight")


def test_no_folder_and_no_adapter(tmp_path: Path, bases: dict[str, Path]) -> None:
    file = tmp_path / "file"
    file.write_text("")
    assert refusal(tmp_path / "none") == "HERE: expected a folder, found no such folder; check the path"
    assert refusal(file) == "HERE: expected a folder, found a file; check the path"
    assert refusal(tmp_path) == "HERE: expected a PEFT adapter with adapter_config.json, found none; check the path"
    assert refusal(bases["qwen"]) == "HERE: expected a PEFT adapter with adapter_config.json, found none; check the path"


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (
            "{",
            "expected a PEFT adapter's configuration, found broken JSON (Expecting property name",
        ),
        ("", "expected a PEFT adapter's configuration, found broken JSON (Expecting value: line 1 column 1 (char 0)); "),
        ("[]", "expected a PEFT configuration with peft_type, found none; save the adapter with PEFT again"),
        ("{}", "expected a PEFT configuration with peft_type, found none; save the adapter with PEFT again"),
    ],
)
def test_a_broken_configuration(content: str, text: str, make_adapter: Any) -> None:
    folder = make_adapter("adapter", factors())
    (folder / "adapter_config.json").write_text(content)
    assert refusal(folder).startswith(f"HERE/adapter_config.json: {text}")


@pytest.mark.parametrize("name", ["adapter_model.bin", "adapter_model.pt"])
def test_a_pickle_is_never_loaded(name: str, make_adapter: Any) -> None:
    folder = make_adapter("adapter", factors())
    weights = load_file(folder / "adapter_model.safetensors")
    (folder / "adapter_model.safetensors").unlink()
    torch.save(weights, folder / name)
    assert refusal(folder) == (
        f"HERE: expected weights in adapter_model.safetensors, found a pickle ({name}), which is never loaded because loading it runs code; "
        + (
            "convert it first: PeftModel.from_pretrained(base, ...).save_pretrained(...)"
            if name.endswith(".bin")
            else "convert it to safetensors with the library that wrote it"
        )
    )


def test_no_weights(make_adapter: Any) -> None:
    folder = make_adapter("adapter", factors())
    (folder / "adapter_model.safetensors").unlink()
    assert refusal(folder) == (
        "HERE: expected weights in adapter_model.safetensors or adapter_model.safetensors.index.json, found neither file; "
        "check the path, or download the weights again"
    )


def test_a_cut_adapter(make_adapter: Any) -> None:
    folder = make_adapter("adapter", factors())
    file = folder / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    text = refusal(folder)
    assert text.startswith("HERE/adapter_model.safetensors: expected a whole safetensors file, found a truncated or corrupt one (")
    assert text.endswith("; download or write it again")


def test_quantisation_of_the_base_in_a_saved_embedding(make_adapter: Any, make_checkpoint: Any) -> None:
    """A saved module of integers is refused where it is read, not turned into numbers."""
    base = Checkpoint.open(make_checkpoint("base", {"model.a.weight": torch.ones(4, 6)}))
    folder = make_adapter("adapter", factors())
    file = folder / "adapter_model.safetensors"
    save_file(load_file(file) | {"base_model.model.model.a.base_layer.weight": torch.ones(4, 6, dtype=torch.uint8)}, file)
    with pytest.raises(BadInput, match="expected floating-point weights, found U8 values"):
        Adapter.open(folder, base).delta("model.a.weight")
