"""Task vectors brought to the same tensors: names without a base, tied heads, rows of a vocabulary."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path

import peft
import pytest
import torch
import transformers
from peft import LoraConfig
from safetensors.torch import load_file, save_file
from torch import Tensor

from unmerge.core.errors import BadInput
from unmerge.decomposition import Dictionary, decompose, open_base, open_dictionary, open_vector
from unmerge.decomposition.alignment import aligned, aligned_with, strangers
from unmerge.decomposition.check import check_dictionary

ATTENTION = tuple(f"model.layers.{layer}.self_attn.{kind}_proj" for layer in range(3) for kind in "qv")
MLP = tuple(f"model.layers.{layer}.mlp.{kind}_proj" for layer in range(3) for kind in ("up", "down"))


def adapter(folder: Path, modules: Mapping[str, str] | tuple[str, ...], seed: int, rows: int = 24, more: Mapping[str, Tensor] | None = None) -> Path:
    """A LoRA of rank 2; modules by the names that its file has."""
    generator = torch.Generator().manual_seed(seed)
    tensors = dict(more or {})
    for module in modules:
        tensors[f"base_model.model.{module}.lora_A.weight"] = torch.randn(2, 16, generator=generator)
        tensors[f"base_model.model.{module}.lora_B.weight"] = torch.randn(rows if module == "lm_head" else 24, 2, generator=generator)
    folder.mkdir(parents=True)
    save_file(tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 2}))
    return folder


def under(modules: tuple[str, ...], prefix: str) -> tuple[str, ...]:
    return tuple(module.replace("model.layers", f"{prefix}.layers") for module in modules)


@pytest.mark.parametrize("prefix", ["model.language_model", "language_model.model", "_orig_mod.model", "base_model.model.model"])
def test_adapters_without_a_base_under_names_of_two_kinds(prefix: str, tmp_path: Path) -> None:
    for seed in range(6):
        adapter(tmp_path / "atoms" / f"a{seed}", ATTENTION, seed)
    target = open_vector(adapter(tmp_path / "target", under(ATTENTION, prefix), 0), None)
    found = decompose(target, open_dictionary([tmp_path / "atoms"], None))
    assert [(component.name, component.coefficient) for component in found.components] == [("a0", pytest.approx(1.0))]
    assert found.unexplained.share < 1e-9
    assert {names.vector for names in found.matched_names} <= {"target"} | {f"a{seed}" for seed in range(6)}
    assert all(names.tensors == len(ATTENTION) for names in found.matched_names)
    assert found.matched_names


def test_atoms_of_another_naming_stay_comparable_where_the_target_changes_nothing(tmp_path: Path) -> None:
    """The modules that the target lacks go by the rule that the others show: two atoms of one run are alike in those as well."""
    for name, names in (("one", (*ATTENTION, *MLP)), ("two", under((*ATTENTION, *MLP), "model.language_model"))):
        adapter(tmp_path / name, names, 1)
    target = open_vector(adapter(tmp_path / "target", ATTENTION, 2), None)
    _, one, two = aligned([target, open_vector(tmp_path / "one", None), open_vector(tmp_path / "two", None)])
    assert one.shapes == two.shapes
    assert all(torch.equal(one.delta(tensor).dense(), two.delta(tensor).dense()) for tensor in one.shapes)
    check = check_dictionary(Dictionary((open_vector(tmp_path / "one", None), open_vector(tmp_path / "two", None)), ()))
    assert [pair.cosine for pair in check.pairs] == [pytest.approx(1.0)]
    assert [(names.vector, names.own, names.reference) for names in check.matched_names] == [("two", "model.language_model", "model")]


def test_what_is_aligned_stays_as_it_is(tmp_path: Path) -> None:
    vectors = [open_vector(adapter(tmp_path / str(seed), ATTENTION, seed), None) for seed in range(2)]
    assert aligned(vectors) == tuple(vectors)


def test_names_that_could_be_one_or_another_are_refused(tmp_path: Path) -> None:
    towers = (*under(ATTENTION, "thinker"), *under(ATTENTION, "talker"))
    target = open_vector(adapter(tmp_path / "target", towers, 0), None)
    atom = open_vector(adapter(tmp_path / "atom", under(ATTENTION, "model"), 1), None)
    with pytest.raises(BadInput, match=r"atom, tensor model.layers.0.self_attn.q_proj.weight: expected names that tell the tensors apart, found "):
        aligned([target, atom])


def test_nothing_shared_is_never_an_answer(tmp_path: Path) -> None:
    """Another model's adapters are refused; the same model's other modules are told, since there absence is true."""
    target = open_vector(adapter(tmp_path / "target", ATTENTION, 0), None)
    other = open_vector(adapter(tmp_path / "other", ("transformer.h.0.attn.c_attn", "transformer.h.1.attn.c_attn"), 1), None)
    with pytest.raises(BadInput) as caught:
        decompose(target, Dictionary((other,), ()))
    assert str(caught.value) == (
        f"{tmp_path / 'target'}: expected tensors that an atom changes as well (transformer.h.0.attn.c_attn.weight in other, ...), "
        "found none (model.layers.0.self_attn.q_proj.weight, ...); "
        "give atoms of the target's model, or with --base the model that both belong to"
    )
    mlp = open_vector(adapter(tmp_path / "mlp", MLP, 1), None)
    expected = (
        "mlp changes no tensor that the target changes (model.layers.0.mlp.down_proj.weight, ...; "
        "the target model.layers.0.self_attn.q_proj.weight, ...)"
    )
    assert strangers(target, [mlp]) == strangers(target, [target, mlp]) == [expected]
    assert strangers(target, [target]) == []


def test_vocabularies_of_two_sizes_without_a_base(tmp_path: Path) -> None:
    """Adapters to a head of 24 rows, and of 30 where tokens were added: the first 24 are compared, and the others are told."""
    for seed in range(5):
        adapter(tmp_path / "atoms" / f"a{seed}", (*ATTENTION, "lm_head"), seed)
    folder = adapter(tmp_path / "target", (*ATTENTION, "lm_head"), 0)
    weights = load_file(folder / "adapter_model.safetensors")
    weights["base_model.model.lm_head.lora_B.weight"] = torch.cat([weights["base_model.model.lm_head.lora_B.weight"], torch.ones(6, 2)])
    save_file(weights, folder / "adapter_model.safetensors")
    found = decompose(open_vector(folder, None), open_dictionary([tmp_path / "atoms"], None))
    assert [(component.name, component.coefficient) for component in found.components] == [("a0", pytest.approx(1.0))]
    assert found.unexplained.share < 1e-9
    reason = "target: rows 24 to 29 of 30: not all that are compared have them"
    assert [(skip.tensor, skip.reason) for skip in found.skipped] == [("lm_head.weight", reason)]


HEADS: dict[str, tuple[str, LoraConfig]] = {
    "head": ("tied", LoraConfig(r=2, target_modules=["q_proj", "lm_head"])),
    "head and embedding": ("tied", LoraConfig(r=2, target_modules=["q_proj", "lm_head", "embed_tokens"])),
    "dora of the head": ("tied", LoraConfig(r=2, use_dora=True, target_modules=["lm_head"])),
    "gpt2's head": ("gpt2", LoraConfig(r=2, target_modules=["c_attn", "lm_head"])),
    "gpt2's head and embedding": ("gpt2", LoraConfig(r=2, target_modules=["wte", "lm_head"])),
}


@pytest.mark.parametrize("name", HEADS)
def test_a_tied_head_changes_the_embedding_as_pefts_merge_does(name: str, tmp_path: Path) -> None:
    """One weight is both: what the adapter does to either is in it, and what it does to both adds up."""
    kind, config = HEADS[name]
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1}
    settings = (
        transformers.Qwen2Config(vocab_size=40, tie_word_embeddings=True, **sizes)
        if kind == "tied"
        else transformers.GPT2Config(vocab_size=40, n_embd=16, n_layer=2, n_head=2, n_positions=8, bos_token_id=0, eos_token_id=1)
    )
    torch.manual_seed(0)
    transformers.AutoModelForCausalLM.from_config(settings).save_pretrained(tmp_path / "base")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = peft.get_peft_model(transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base"), config)
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data += 0.1 * torch.randn_like(parameter)
        model.save_pretrained(tmp_path / "atom", save_embedding_layers=False)
        model.merge_and_unload().save_pretrained(tmp_path / "target")
    base = open_base(tmp_path / "base")
    target, dictionary = aligned_with(open_vector(tmp_path / "target", base), Dictionary((open_vector(tmp_path / "atom", base),), ()))
    (atom,) = dictionary.atoms
    changed = {tensor for tensor in target.shapes if bool(target.delta(tensor).dense().any())}
    assert set(atom.shapes) == changed
    assert any(tensor.endswith(("embed_tokens.weight", "wte.weight")) for tensor in changed)
    for tensor in changed:
        torch.testing.assert_close(atom.delta(tensor).dense(), target.delta(tensor).dense(), atol=1e-5, rtol=1e-4)


def test_a_head_that_was_untied_keeps_its_change(tmp_path: Path) -> None:
    """The target has a head of its own: the adapter's change is in that one, not in the embedding."""
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1}
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(transformers.Qwen2Config(vocab_size=24, tie_word_embeddings=True, **sizes))
    model.save_pretrained(tmp_path / "base")
    folder = adapter(tmp_path / "atom", ("lm_head",), 3)
    base = open_base(tmp_path / "base")
    change = open_vector(folder, base).delta("lm_head.weight").dense()
    state = load_file(tmp_path / "base" / "model.safetensors")
    (tmp_path / "target").mkdir()
    save_file(state | {"lm_head.weight": state["model.embed_tokens.weight"] + change}, tmp_path / "target" / "model.safetensors")
    settings = json.loads((tmp_path / "base" / "config.json").read_text()) | {"tie_word_embeddings": False}
    (tmp_path / "target" / "config.json").write_text(json.dumps(settings))
    target, atom = aligned([open_vector(tmp_path / "target", base), open_vector(folder, base)])
    assert set(atom.shapes) == {"lm_head.weight"}
    torch.testing.assert_close(target.delta("lm_head.weight").dense(), atom.delta("lm_head.weight").dense())
    assert not target.delta("model.embed_tokens.weight").dense().any()
