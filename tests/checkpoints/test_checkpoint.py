"""Checkpoints as transformers writes them: sharded or not, any float, tied or not; and task vectors from two of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from safetensors.torch import load_file, save_file
from torch import Tensor

from unmerge.checkpoints import Adapter, Checkpoint, Difference
from unmerge.core.errors import BadInput
from unmerge.vectors import TaskVector, gram

HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"
DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64]


def tuned_from(lab: Any, base: Path, dtype: torch.dtype = torch.float32, shards: str = "1GB", scale: float = 0.01) -> tuple[Path, Any]:
    """A model near the base, saved, and the model itself."""
    model = lab.load(base)
    torch.manual_seed(2)
    for parameter in model.parameters():
        parameter.data += scale * torch.randn_like(parameter)
    folder = lab.place()
    model.to(dtype).save_pretrained(folder, max_shard_size=shards)
    return folder, model


def differs(tuned: Path, base: Path) -> Difference:
    return Difference.between("t", Checkpoint.open(tuned), Checkpoint.open(base))


@pytest.mark.parametrize("shards", ["1GB", "4KB"], ids=["one file", "shards"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_tensor_is_read_as_the_model_has_it(dtype: torch.dtype, shards: str, lab: Any, bases: dict[str, Path]) -> None:
    folder, model = tuned_from(lab, bases["qwen"], dtype, shards)
    assert (folder / "model.safetensors.index.json").exists() == (shards == "4KB")
    checkpoint = Checkpoint.open(folder)
    assert len(checkpoint.files.files) == len(list(folder.glob("*.safetensors")))
    state = model.state_dict()
    assert dict(checkpoint.shapes) == {name: tuple(values.shape) for name, values in state.items()}
    for name, values in state.items():
        assert checkpoint.read(name).dtype == dtype
        assert torch.equal(checkpoint.read(name), values)
    assert set(checkpoint.source().sha256) == {path.name for path in folder.glob("*.safetensors")} | {"config.json"}


@pytest.mark.parametrize("model", ["qwen", "tied", "gpt2"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_task_vector_is_the_difference_of_the_models(dtype: torch.dtype, model: str, lab: Any, bases: dict[str, Path]) -> None:
    folder, tuned = tuned_from(lab, bases[model], dtype, "4KB")
    vector = differs(folder, bases[model])
    assert isinstance(vector, TaskVector)
    before = lab.load(bases[model]).state_dict()
    names = set(before) - ({HEAD} if model != "qwen" else set())
    assert set(vector.shapes) == names
    assert vector.skipped == ()
    for name in names:
        truth = tuned.state_dict()[name].double() - before[name].double()
        found = vector.delta(name).values
        assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        torch.testing.assert_close(found.double(), truth, rtol=1e-6, atol=1e-7)
        assert vector.shapes[name] == tuple(found.shape)


def test_the_difference_of_bf16_models_is_exact(lab: Any, bases: dict[str, Path]) -> None:
    """In bf16 itself it would be rounded a second time."""
    base, _ = tuned_from(lab, bases["qwen"], torch.bfloat16, scale=0)
    folder, tuned = tuned_from(lab, bases["qwen"], torch.bfloat16)
    before = lab.load(base).state_dict()
    vector = differs(folder, base)
    for name in vector.shapes:
        assert torch.equal(vector.delta(name).values.double(), tuned.state_dict()[name].double() - before[name].double())


def test_a_target_untied_from_a_tied_base(lab: Any, bases: dict[str, Path]) -> None:
    """The base's head is its embedding: the target's own head is measured from that."""
    model = lab.load(bases["tied"])
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach() + 1)
    model.config.tie_word_embeddings = False
    folder = lab.place()
    model.save_pretrained(folder)
    assert Checkpoint.open(bases["tied"]).is_tied
    assert not Checkpoint.open(folder).is_tied
    vector = differs(folder, bases["tied"])
    assert vector.skipped == ()
    torch.testing.assert_close(vector.delta(HEAD).values, torch.ones(32, 16))
    assert not vector.delta(EMBEDDING).values.any()


def test_a_target_that_ties_what_the_base_did_not(lab: Any, bases: dict[str, Path]) -> None:
    base = lab.load(bases["qwen"]).state_dict()
    vector = differs(bases["tied"], bases["qwen"])
    assert vector.skipped == ()
    assert torch.equal(vector.delta(HEAD).values, lab.load(bases["tied"]).state_dict()[EMBEDDING] - base[HEAD])


@pytest.mark.parametrize("step", [0.0, 0.5], ids=["the same values", "other values"])
@pytest.mark.parametrize(("base", "embedding"), [("tied", EMBEDDING), ("gpt2", "transformer.wte.weight")], ids=["tied", "gpt2"])
def test_a_head_that_is_stored_although_it_is_tied(base: str, embedding: str, step: float, lab: Any, bases: dict[str, Path]) -> None:
    """Equal to the embedding it must not count twice; with values of its own it is what the model runs with."""
    state = load_file(bases[base] / "model.safetensors")
    folder = lab.place()
    folder.mkdir()
    (folder / "config.json").write_text((bases[base] / "config.json").read_text())
    save_file(state | {HEAD: state[embedding] + step}, folder / "model.safetensors", metadata={"format": "pt"})
    checkpoint, loaded = Checkpoint.open(folder), lab.load(folder)
    assert checkpoint.is_tied == (step == 0.0) == (loaded.lm_head.weight is loaded.get_input_embeddings().weight)
    assert torch.equal(checkpoint.read(HEAD), loaded.lm_head.weight)
    vector = differs(folder, bases[base])
    assert (HEAD in vector.shapes) == (step != 0.0)
    assert vector.skipped == ()


def test_a_tied_model_stored_under_the_name_of_its_head(lab: Any, bases: dict[str, Path]) -> None:
    """Tools that drop one of two shared tensors may keep the other one."""
    weights = load_file(bases["tied"] / "model.safetensors")
    weights[HEAD] = weights.pop(EMBEDDING)
    folder = lab.place()
    lab.load(bases["tied"]).save_pretrained(folder)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert torch.equal(lab.load(folder).model.embed_tokens.weight, weights[HEAD])
    checkpoint = Checkpoint.open(folder)
    assert torch.equal(checkpoint.read(EMBEDDING), weights[HEAD])
    for one, other in ((folder, bases["tied"]), (bases["tied"], folder), (folder, folder)):
        vector = differs(one, other)
        assert vector.skipped == ()
        assert len(vector.shapes) == len(weights)
        assert not any(vector.delta(name).values.any() for name in vector.shapes)


def test_an_atom_on_a_tied_base_comes_back_with_its_weight(lab: Any, bases: dict[str, Path]) -> None:
    """An adapter that trains embedding and head as one, in a target that stores them once: counted twice, its weight would be halved."""
    config = LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["embed_tokens"], ensure_weight_tying=True)
    base = Checkpoint.open(bases["tied"])
    adapter = Adapter.open(lab.adapter(bases["tied"], config), base)
    model = lab.load(bases["tied"])
    for name, parameter in model.named_parameters():
        if name in adapter.shapes:
            parameter.data += 0.7 * adapter.delta(name).dense()
    folder = lab.place()
    model.save_pretrained(folder)
    found = gram([adapter], Difference("t", Checkpoint.open(folder), base))
    assert float(found.correlation.sum() / found.gram.sum()) == pytest.approx(0.7, abs=1e-5)


def test_tensors_of_one_side_and_buffers_are_listed(make_checkpoint: Any) -> None:
    shared = {"model.a.weight": torch.ones(3, 2)}
    base = make_checkpoint("base", shared | {"model.old.weight": torch.ones(2), "model.mask": torch.ones(1, 4, dtype=torch.bool)})
    tuned = make_checkpoint("tuned", shared | {"model.new.weight": torch.ones(2), "model.mask": torch.zeros(1, 4, dtype=torch.bool)})
    vector = differs(tuned, base)
    assert {skip.tensor: skip.reason for skip in vector.skipped} == {
        "model.new.weight": "only the target has it",
        "model.old.weight": "only the base has it",
        "model.mask": "it holds integers, not weights",
    }
    assert set(vector.shapes) == {"model.a.weight"}


def test_a_base_of_another_shape(lab: Any, bases: dict[str, Path], qwen_config: Callable[..., Any]) -> None:
    wider = lab.base(qwen_config(intermediate_size=40))
    with pytest.raises(BadInput) as caught:
        dict(differs(wider, bases["qwen"]).shapes)
    assert str(caught.value) == (
        f"{wider}, tensor model.layers.0.mlp.down_proj.weight: expected the base's shape (16, 24), found (16, 40); "
        "give the base that the checkpoint was made from with --base"
    )


def test_nothing_in_common(lab: Any, bases: dict[str, Path]) -> None:
    """Every tensor on one side only is another architecture or another naming, not a task vector of nothing."""
    with pytest.raises(BadInput) as caught:
        dict(differs(bases["gpt2"], bases["qwen"]).shapes)
    assert str(caught.value) == (
        f"{bases['gpt2']}: expected tensors that the base has as well (lm_head.weight, ...), found none (transformer.h.0.attn.c_attn.bias, ...); "
        "give its base with --base, or write both with transformers' save_pretrained, which brings names up to date"
    )


def tensors_of(count: int) -> dict[str, Tensor]:
    torch.manual_seed(0)
    return {f"model.{number}.weight": torch.randn(3, 2) for number in range(count)}


def sharded(folder: Path, shards: dict[str, dict[str, Tensor]], listed: dict[str, str]) -> Path:
    folder.mkdir()
    for name, tensors in shards.items():
        save_file(tensors, folder / name)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": listed}))
    return folder


def test_a_tensor_that_the_index_forgot_is_not_lost(tmp_path: Path) -> None:
    tensors = tensors_of(3)
    folder = sharded(tmp_path / "m", {"1.safetensors": tensors}, dict.fromkeys(list(tensors)[:2], "1.safetensors"))
    assert set(Checkpoint.open(folder).shapes) == set(tensors)


@pytest.mark.parametrize("listed", ["1.safetensors", "2.safetensors"])
def test_where_two_shards_hold_a_tensor_the_index_decides(listed: str, tmp_path: Path) -> None:
    tensors = tensors_of(3)
    one, two, three = tensors
    shards = {"1.safetensors": {one: tensors[one], two: tensors[two]}, "2.safetensors": {one: tensors[one] + 1, three: tensors[three]}}
    folder = sharded(tmp_path / "m", shards, {one: listed, two: "1.safetensors", three: "2.safetensors"})
    assert torch.equal(Checkpoint.open(folder).read(one), shards[listed][one])


def test_one_whole_file_goes_before_an_index(tmp_path: Path) -> None:
    """As in transformers; shards beside it may be from an earlier save."""
    tensors = tensors_of(2)
    folder = sharded(tmp_path / "m", {"1.safetensors": tensors}, dict.fromkeys(tensors, "1.safetensors"))
    save_file({name: values + 1 for name, values in tensors.items()}, folder / "model.safetensors")
    checkpoint = Checkpoint.open(folder)
    assert all(torch.equal(checkpoint.read(name), values + 1) for name, values in tensors.items())
