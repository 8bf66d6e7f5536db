"""What a checkpoint stores beside the weights that change: buffers of every dtype, tied copies, rows of new or of trimmed tokens."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from unmerge.checkpoints.rewrite import read_header
from unmerge.core.errors import BadInput
from unmerge.decomposition import open_base, open_vector
from unmerge.decomposition.ablation_record import AblationRecord
from unmerge.verification import ablate

VOCABULARY, HIDDEN = 24, 16
EMBEDDING, HEAD, QUERY = "model.embed_tokens.weight", "lm_head.weight", "model.layers.0.self_attn.q_proj.weight"
FACTORS = [f"base_model.model.{QUERY.removesuffix('.weight')}.lora_{part}.weight" for part in "AB"]
#: every dtype that safetensors and torch have in common, beside those of the weights
BUFFERS = (
    "bool uint8 int8 int16 uint16 int32 uint32 int64 uint64 float8_e4m3fn float8_e5m2 float8_e4m3fnuz float8_e5m2fnuz float8_e8m0fnu complex64"
).split()


def base(folder: Path, *, tied: bool = False) -> Path:
    """A Llama of one layer in float32."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=HIDDEN,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        tie_word_embeddings=tied,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def weights(folder: Path) -> dict[str, Tensor]:
    found: dict[str, Tensor] = load_file(folder / "model.safetensors")
    return found


def adapter(folder: Path, base: Path, **settings: Any) -> Path:
    """A LoRA by PEFT, all of its factors drawn, and what it saves whole moved."""
    torch.manual_seed(1)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), LoraConfig(r=2, lora_alpha=4, task_type="CAUSAL_LM", **settings))
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    return folder


def merged(folder: Path, base: Path, adapter: Path) -> Path:
    """By PEFT."""
    PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter).merge_and_unload().save_pretrained(folder)
    return folder


def without(tmp_path: Path, coefficient: float = 1.0) -> tuple[dict[str, Tensor], AblationRecord]:
    """The target less the atom: the weights that are written, and the record."""
    opened = open_base(tmp_path / "base")
    vector, atom = open_vector(tmp_path / "target", opened), open_vector(tmp_path / "atom", opened)
    record = ablate(vector, [(atom, coefficient)], tmp_path / "out")
    assert record == AblationRecord.model_validate_json((tmp_path / "out" / "ablation.json").read_text())
    return weights(tmp_path / "out"), record


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base whose head is its own, an atom of q and v, and their merge."""
    folder = tmp_path_factory.mktemp("stored")
    base(folder / "base")
    adapter(folder / "atom", folder / "base", target_modules=["q_proj", "v_proj"])
    merged(folder / "target", folder / "base", folder / "atom")
    return folder


@pytest.fixture
def plain(made: Path, tmp_path: Path) -> Path:
    """The same, to be changed."""
    return shutil.copytree(made, tmp_path, dirs_exist_ok=True)


@pytest.mark.parametrize("dtype", BUFFERS)
def test_buffers_keep_their_bits(dtype: str, plain: Path) -> None:
    """Every bit pattern, also those that are no number in the dtype."""
    kind = getattr(torch, dtype)
    patterns = torch.arange(16 * 4 * kind.itemsize, dtype=torch.int64).remainder(2 if dtype == "bool" else 256).to(torch.uint8)
    buffers = {f"model.layers.0.{name}": patterns.view(kind).reshape(shape).clone() for name, shape in (("mask", (1, 1, 8, 8)), ("positions", (64,)))}
    buffers["scalar"] = patterns[: kind.itemsize].view(kind).reshape(()).clone()
    save_file(weights(plain / "target") | buffers, plain / "target" / "model.safetensors", metadata={"format": "pt", "of": "a training run"})
    after, record = without(plain)
    for name, values in buffers.items():
        assert after[name].dtype == kind
        assert torch.equal(after[name].reshape(-1).view(torch.uint8), values.reshape(-1).view(torch.uint8))
    assert torch.allclose(after[QUERY], weights(plain / "base")[QUERY], atol=1e-6)
    assert record.remaining == []
    with safe_open(plain / "out" / "model.safetensors", framework="pt") as file:
        assert file.metadata() == {"format": "pt", "of": "a training run"}


def test_a_buffer_of_integers_is_no_quantised_weight(plain: Path) -> None:
    """CLIP's positions are a matrix of 32-bit integers, GPT-2's oldest masks one of bytes."""
    buffers = {"position_ids": torch.arange(VOCABULARY, dtype=torch.int32)[None], "mask": torch.ones(8, 8, dtype=torch.uint8)}
    save_file(weights(plain / "target") | buffers, plain / "target" / "model.safetensors")
    after, _ = without(plain)
    assert all(torch.equal(after[name], values) for name, values in buffers.items())


def test_what_another_shard_holds_twice_is_not_written_twice(plain: Path) -> None:
    """The index decides which of two copies counts; the other would bring the component back to a reader that takes the last one."""
    whole = weights(plain / "target")
    first = {name: values for name, values in whole.items() if name != HEAD}
    (plain / "target" / "model.safetensors").unlink()
    save_file(first, plain / "target" / "model-1.safetensors")
    save_file({HEAD: whole[HEAD], QUERY: whole[QUERY]}, plain / "target" / "model-2.safetensors")
    index = {"metadata": {}, "weight_map": {name: f"model-{2 if name == HEAD else 1}.safetensors" for name in whole}}
    (plain / "target" / "model.safetensors.index.json").write_text(json.dumps(index))
    opened = open_base(plain / "base")
    ablate(open_vector(plain / "target", opened), [(open_vector(plain / "atom", opened), 1.0)], plain / "out")
    assert list(load_file(plain / "out" / "model-2.safetensors")) == [HEAD]
    assert torch.allclose(load_file(plain / "out" / "model-1.safetensors")[QUERY], weights(plain / "base")[QUERY], atol=1e-6)


def test_a_copy_of_everything_is_the_same_file(plain: Path) -> None:
    """Where nothing is subtracted from it, a shard comes out byte for byte as PEFT's merge was saved."""
    opened = open_base(plain / "base")
    ablate(open_vector(plain / "target", opened), [], plain / "out")
    before, after = (plain / name / "model.safetensors" for name in ("target", "out"))
    assert read_header(before) == read_header(after)
    assert before.read_bytes() == after.read_bytes()


def test_an_adapter_that_was_left_beside_the_weights_is_left_behind(plain: Path) -> None:
    """Copied, it would be loaded on the weights that it was taken out of."""
    for file in (plain / "atom").glob("adapter_*"):
        shutil.copy(file, plain / "target")
    after, record = without(plain)
    assert torch.allclose(after[QUERY], weights(plain / "base")[QUERY], atol=1e-6)
    assert record.left_out == ["adapter_config.json", "adapter_model.safetensors"]
    assert not list((plain / "out").glob("adapter_*"))


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")
@pytest.mark.parametrize("modules", [["lm_head"], ["embed_tokens"], ["lm_head", "embed_tokens", "q_proj"]], ids="-".join)
@pytest.mark.parametrize("copies", [1, 2])
def test_tied(modules: list[str], copies: int, tmp_path: Path) -> None:
    """PEFT merges a change of the head into the embedding that it is tied to; it is taken out there, of every stored copy."""
    base(tmp_path / "base", tied=True)
    adapter(tmp_path / "atom", tmp_path / "base", target_modules=modules)
    merged(tmp_path / "target", tmp_path / "base", tmp_path / "atom")
    before = weights(tmp_path / "target")
    assert HEAD not in before
    if copies == 2:
        save_file(before | {HEAD: before[EMBEDDING].clone()}, tmp_path / "target" / "model.safetensors")
    after, record = without(tmp_path)
    start = weights(tmp_path / "base")
    assert not torch.allclose(before[EMBEDDING], start[EMBEDDING], atol=1e-3)
    for name, values in after.items():
        assert torch.allclose(values, start[EMBEDDING if name == HEAD else name], atol=1e-6), name
    assert record.remaining == []


def resized(rows: int) -> dict[str, Tensor]:
    """Embedding and head of so many rows, all of them moved."""
    torch.manual_seed(2)
    return {name: 0.1 * torch.randn(rows, HIDDEN) for name in (EMBEDDING, HEAD)}


def put(folder: Path, tensors: dict[str, Tensor], **settings: object) -> None:
    """Tensors into the weights of a checkpoint or an adapter, settings into its configuration."""
    file, config = next(folder.glob("*.safetensors")), folder / ("config.json" if (folder / "config.json").exists() else "adapter_config.json")
    save_file(load_file(file) | tensors, file)
    config.write_text(json.dumps(json.loads(config.read_text()) | settings))


@pytest.mark.parametrize("rows", [VOCABULARY + 3, VOCABULARY - 4, VOCABULARY])
def test_rows_of_another_vocabulary(rows: int, plain: Path) -> None:
    """What the adapter did to embedding and head goes on the rows that base, adapter and target have; what stays is told."""
    trained = resized(rows)
    put(plain / "target", trained, vocab_size=rows)
    put(plain / "atom", {f"base_model.model.{name}": values for name, values in trained.items()}, modules_to_save=["embed_tokens", "lm_head"])
    after, record = without(plain)
    start, both = weights(plain / "base"), min(rows, VOCABULARY)
    assert torch.allclose(after[QUERY], start[QUERY], atol=1e-6)
    told = {remaining.tensor for remaining in record.remaining}
    for name in (EMBEDDING, HEAD):
        gone = torch.allclose(after[name][:both], start[name][:both], atol=1e-6)
        assert gone or name in told
        assert torch.equal(after[name][both:], trained[name][both:])
        assert (name in told) == (rows > VOCABULARY or not gone)


@pytest.mark.parametrize("rows", [VOCABULARY + 3, VOCABULARY - 4])
def test_a_lora_of_the_embedding_and_another_vocabulary(rows: int, tmp_path: Path) -> None:
    """The atom is to the base's vocabulary; the target was given or has lost rows after the merge."""
    base(tmp_path / "base")
    adapter(tmp_path / "atom", tmp_path / "base", target_modules=["q_proj", "embed_tokens"])
    merged(tmp_path / "target", tmp_path / "base", tmp_path / "atom")
    more = {
        name: torch.cat([values, torch.ones(3, HIDDEN)])[:rows] if rows > VOCABULARY else values[:rows].clone()
        for name, values in weights(tmp_path / "target").items()
        if name in (EMBEDDING, HEAD)
    }
    put(tmp_path / "target", more, vocab_size=rows)
    after, record = without(tmp_path)
    start, both = weights(tmp_path / "base"), min(rows, VOCABULARY)
    assert torch.allclose(after[EMBEDDING][:both], start[EMBEDDING][:both], atol=1e-6)
    assert torch.equal(after[EMBEDDING][both:], more[EMBEDDING][both:])
    assert torch.equal(after[HEAD], more[HEAD])
    assert [str(remaining) for remaining in record.remaining] == (
        []
        if rows < VOCABULARY
        else ["what atom did to model.embed_tokens.weight stays in the target: rows 24 to 26 are of tokens that the component was read without"]
    )


def test_a_component_of_another_architecture(plain: Path) -> None:
    """It changes a tensor that the target does not have: nothing is written."""
    put(plain / "target", {})
    file = plain / "target" / "model.safetensors"
    save_file({name: values for name, values in load_file(file).items() if name != QUERY}, file)
    with pytest.raises(BadInput) as caught:
        without(plain)
    assert str(caught.value) == (
        f"{plain / 'target'}, tensor {QUERY}: expected a tensor of shape (16, 16), which atom changes, found no such tensor; "
        "check that the component is for this target's architecture, or remove another one"
    )
    assert not (plain / "out").exists()


def test_an_adapter_with_more_than_its_lora_is_not_cut_short(plain: Path) -> None:
    """What of an adapter could not be read would be missing in the adapter that is written: it is refused."""
    put(plain / "atom", {f"base_model.model.{HEAD}": resized(VOCABULARY + 3)[HEAD]}, modules_to_save=["lm_head"])
    opened = open_base(plain / "base")
    atom = open_vector(plain / "atom", opened)
    with pytest.raises(BadInput, match=r"found a LORA adapter with other parts"):
        ablate(atom, [(atom, 0.5)], plain / "out")
    record = ablate(open_vector(plain / "target", opened), [(atom, 0.5)], plain / "loaded", as_adapter=True) if atom.skipped else None
    assert record is None or [remaining.tensor for remaining in record.remaining] == [HEAD]
