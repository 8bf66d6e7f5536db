"""Checkpoints that compute the same as another one with their weights arranged otherwise: found out, and read in the other's coordinates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, GemmaConfig, GPT2Config

from unmerge.checkpoints import Adapter, Checkpoint
from unmerge.checkpoints.alignment import AlignedCheckpoint, aligned
from unmerge.checkpoints.alignment.tensor_map import AlignedRows, TensorMap
from unmerge.core.errors import BadInput
from unmerge.vectors import Dense, LowRank
from unmerge_lab.studies.symmetries import OPERATIONS, TOGETHER, Model, apply, plus, read_model, take_layers, write_model

Merged = Callable[..., Path]
CASES = {name: (name,) for name in OPERATIONS} | TOGETHER
#: what is found, and whether the view has the very weights again
SAID = {
    "neurons permuted": {"channels permuted"},
    "heads permuted": {"channels permuted"},
    "values permuted": {"channels permuted"},
    "neurons rescaled": {"channels rescaled"},
    "values rescaled": {"channels rescaled"},
    "queries rescaled": {"channels rescaled"},
    "norms folded": {"norm folded"},
    "stream permuted": {"residual stream permuted"},
    "stream rotated": {"residual stream rotated", "norm folded"},
    "permuted": {"channels permuted"},
    "rescaled": {"channels rescaled"},
    "permuted and rescaled": {"channels permuted", "channels rescaled"},
    "folded, permuted and rescaled": {"norm folded", "channels permuted", "channels rescaled"},
    "everything": {"residual stream permuted", "norm folded", "channels permuted", "channels rescaled"},
}
MOVED_ONLY = {"channels permuted", "residual stream permuted"}


@pytest.fixture(scope="module")
def base(zoo: Path) -> Checkpoint:
    return Checkpoint.open(zoo / "zoo-base")


@pytest.fixture(scope="module")
def target(zoo: Path, base: Checkpoint) -> Model:
    """The zoo's base with three adapters."""
    names = ("pirate", "json_object", "parity")
    return plus(read_model(base), [(Adapter.open(zoo / "known" / name, base), weight) for name, weight in zip(names, (0.8, 0.5, 0.35), strict=True)])


def logits(model: Model, like: Path, out: Path) -> Tensor:
    opened = Checkpoint.open(like)
    loaded = AutoModelForCausalLM.from_pretrained(write_model(model, opened, out, torch.float32), dtype=torch.float32)
    with torch.no_grad():
        found: Tensor = loaded(torch.arange(2, 34)[None]).logits
    return found


@pytest.mark.parametrize("name", CASES)
def test_operations_leave_the_function_as_it_is(name: str, target: Model, zoo: Path, tmp_path: Path) -> None:
    before = logits(target, zoo / "zoo-base", tmp_path / "before")
    after = logits(apply(target, CASES[name]), zoo / "zoo-base", tmp_path / "after")
    assert torch.allclose(before, after, atol=2e-3 * float(before.abs().max()))


@pytest.mark.parametrize(("name", "dtype"), [*((name, torch.float32) for name in OPERATIONS), *((name, torch.bfloat16) for name in TOGETHER)])
def test_what_was_done_is_undone(name: str, dtype: torch.dtype, target: Model, base: Checkpoint, tmp_path: Path) -> None:
    """To the last bit where weights were only moved; else up to rounding, and what a factor takes of a change along its row."""
    plain = Checkpoint.open(write_model(target, base, tmp_path / "plain", dtype))
    view = aligned(Checkpoint.open(write_model(apply(target, CASES[name], seed=1), base, tmp_path / "target", dtype)), base)
    assert isinstance(view, AlignedCheckpoint)
    assert {operation.operation for operation in view.operations} == SAID[name]
    assert view.unlike == {}
    for tensor in base.shapes:
        found, wanted = view.read(tensor), plain.read(tensor)
        if SAID[name] <= MOVED_ONLY:
            assert view.dtype(tensor) == found.dtype == wanted.dtype
            assert torch.equal(found, wanted), tensor
        else:
            change = float((wanted.double() - base.read(tensor).double()).norm())
            rounding = 1e-2 if wanted.dim() == 1 else 2e-6 if dtype == torch.float32 else 4e-3
            limit = 0.15 * change + rounding * float(wanted.double().norm())
            assert float((found.double() - wanted.double()).norm()) <= limit, tensor
        assert torch.equal(view.rows(tensor)[3:7], found[3:7])


def test_norms_that_multiply_by_one_plus_their_weights(tmp_path: Path) -> None:
    config = GemmaConfig(
        vocab_size=200, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=16
    )
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.add_(0.2 * torch.randn_like(parameter))
    model.save_pretrained(tmp_path / "base")
    base = Checkpoint.open(tmp_path / "base")
    plain = replace(read_model(base), offset=1.0)
    folded = apply(plain, ["norms folded"])
    assert all(not values.any() for name, values in folded.weights.items() if "norm" in name)
    before, after = (logits(model, tmp_path / "base", tmp_path / name) for name, model in (("plain", plain), ("folded", folded)))
    assert torch.allclose(before, after, atol=1e-3 * float(before.abs().max()))
    view = aligned(Checkpoint.open(tmp_path / "folded"), base)
    for tensor in base.shapes:
        assert torch.allclose(view.read(tensor).double(), base.read(tensor).double(), atol=1e-6), tensor


def test_neurons_of_an_mlp_without_gates(tmp_path: Path) -> None:
    """GPT-2: transposed matrices, biases on the neurons, heads in one matrix."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(GPT2Config(vocab_size=200, n_positions=64, n_embd=64, n_layer=2, n_head=4), dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    model.save_pretrained(tmp_path / "base")
    with torch.no_grad():
        before = model.eval()(torch.arange(20)[None]).logits
        for block in model.transformer.h:
            order = torch.randperm(256)
            block.mlp.c_fc.weight.copy_(block.mlp.c_fc.weight[:, order])
            block.mlp.c_fc.bias.copy_(block.mlp.c_fc.bias[order])
            block.mlp.c_proj.weight.copy_(block.mlp.c_proj.weight[order])
        assert torch.allclose(before, model(torch.arange(20)[None]).logits, atol=1e-5)
    model.save_pretrained(tmp_path / "target")
    base = Checkpoint.open(tmp_path / "base")
    view = aligned(Checkpoint.open(tmp_path / "target"), base)
    assert isinstance(view, AlignedCheckpoint)
    assert all(torch.equal(view.read(tensor), base.read(tensor)) for tensor in base.shapes)


@pytest.mark.parametrize(
    ("order", "said"),
    [
        ((0, 1, 1, 2, 3), "0, 1, 1, 2, 3 of the base; repeated in the target, and counted once: layer 2"),
        ((0, 1, 2, 1, 2, 3), "0, 1, 2, 1, 2, 3 of the base; repeated in the target, and counted once: layers 3, 4"),
        ((0, 2, 3), "0, 2, 3 of the base; left out of the base: layer 1"),
        ((0, 2, 1, 3), "0, 2, 1, 3 of the base"),
        ((0, 0, 2, 3), "0, 0, 2, 3 of the base; left out of the base: layer 1; repeated in the target, and counted once: layer 1"),
    ],
)
def test_layers(order: tuple[int, ...], said: str, target: Model, base: Checkpoint, tmp_path: Path) -> None:
    view = aligned(Checkpoint.open(write_model(take_layers(target, order), base, tmp_path / "target", torch.float32)), base)
    assert isinstance(view, AlignedCheckpoint)
    assert [operation.detail for operation in view.operations] == [f"the target's layers are {said}"]
    for tensor, wanted in target.weights.items():
        there = ".layers." not in tensor or int(tensor.split(".")[2]) in order
        assert view.holds(tensor) is there
        assert not there or torch.equal(view.read(tensor), wanted)


def test_a_copy_of_a_layer_that_went_its_own_way_is_told(target: Model, base: Checkpoint, tmp_path: Path) -> None:
    stacked = take_layers(target, (0, 1, 1, 2, 3))
    stacked.weights["model.layers.2.mlp.up_proj.weight"] = 1.05 * stacked.weights["model.layers.2.mlp.up_proj.weight"]
    view = aligned(Checkpoint.open(write_model(stacked, base, tmp_path / "target", torch.float32)), base)
    assert isinstance(view, AlignedCheckpoint)
    assert view.summary.endswith("counted once: layer 2; no longer equal to the first copy: layer 2)")


def test_a_layer_that_the_base_does_not_have(target: Model, base: Checkpoint, tmp_path: Path) -> None:
    stacked = take_layers(target, (0, 1, 1, 2, 3))
    for name, values in stacked.weights.items():
        if ".layers.2." in name and values.dim() == 2:
            stacked.weights[name] = values.std() * torch.randn_like(values)
    with pytest.raises(BadInput, match=r"5 layers of which at least one is like none of the base's \(model.layers: 0, 1, \?, 2, 3\)"):
        aligned(Checkpoint.open(write_model(stacked, base, tmp_path / "target", torch.float32)), base)


def test_heads_that_were_turned_are_left_out_with_a_reason(target: Model, base: Checkpoint, tmp_path: Path) -> None:
    """A rotation of a head's values leaves the function as it is; it cannot be told from the weights alone how to undo it to the digit."""
    for layer in range(target.layers):
        place = f"model.layers.{layer}.self_attn"
        turn = torch.linalg.qr(torch.randn(target.width, target.width)).Q
        values = torch.block_diag(*[turn] * target.groups)
        made = {
            f"{place}.v_proj.weight": values @ target.weights[f"{place}.v_proj.weight"],
            f"{place}.v_proj.bias": values @ target.weights[f"{place}.v_proj.bias"],
            f"{place}.o_proj.weight": target.weights[f"{place}.o_proj.weight"] @ torch.block_diag(*[turn] * target.heads).T,
        }
        target = replace(target, weights=target.weights | made)
    view = aligned(Checkpoint.open(write_model(target, base, tmp_path / "target", torch.float32)), base)
    assert isinstance(view, AlignedCheckpoint)
    assert view.operations == ()
    assert sorted(view.unlike) == sorted(f"model.layers.{layer}.self_attn.{kind}_proj.weight" for layer in range(4) for kind in "vo")


MERGES = {"linear": {}, "ties": {"density": 0.5}, "dare_linear": {"density": 0.1}, "task_arithmetic": {}}


@pytest.mark.parametrize("method", MERGES)
@pytest.mark.parametrize("weight", [0.1, 1.2])
def test_merges_lie_as_their_base_does(method: str, weight: float, zoo: Path, base: Checkpoint, merged: Merged) -> None:
    names = ("pirate", "json_object", "parity", "opposite", "python_list")
    target = Checkpoint.open(merged(dict.fromkeys(names, weight), method, parameters=MERGES[method]))
    assert aligned(target, base) is target


def noise(values: Tensor) -> Tensor:
    return values + 0.3 * values.std() * torch.randn_like(values)


def longer_rows(values: Tensor) -> Tensor:
    """As DoRA may leave them: every row by a factor of its own, which nothing cancels."""
    return values * (1 + 0.2 * torch.randn(len(values), 1))


def decay(values: Tensor) -> Tensor:
    return 0.97 * values


@pytest.mark.parametrize("change", [noise, longer_rows, decay], ids=lambda change: change.__name__)
def test_changes_that_are_no_other_layout(change: Callable[[Tensor], Tensor], base: Checkpoint, tmp_path: Path) -> None:
    """Whatever happens to every matrix by itself."""
    torch.manual_seed(0)
    model = read_model(base)
    weights = {name: change(values) if values.dim() == 2 else values for name, values in model.weights.items()}
    target = Checkpoint.open(write_model(replace(model, weights=weights), base, tmp_path / "target", torch.bfloat16))
    assert aligned(target, base) is target


def test_another_model_is_not_brought_to_the_base(zoo: Path, base: Checkpoint, tmp_path: Path) -> None:
    torch.manual_seed(1)
    AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(zoo / "zoo-base"), dtype=torch.bfloat16).save_pretrained(tmp_path)
    target = Checkpoint.open(tmp_path)
    assert aligned(target, base) is target


def test_a_change_goes_back_the_way_the_weights_came() -> None:
    """For every part of a way: taking the returned change from what is stored takes the change from what is aligned."""
    draw = torch.Generator().manual_seed(0)
    rotations = [torch.linalg.qr(torch.randn(n, n, generator=draw, dtype=torch.float64)).Q for n in (6, 5)]
    way = TensorMap("w", *rotations).on_rows(torch.randperm(6, generator=draw), torch.rand(6, generator=draw, dtype=torch.float64) + 0.5)
    way = way.on_columns(torch.randperm(5, generator=draw), torch.rand(5, generator=draw, dtype=torch.float64) + 0.5).on_rows(torch.randperm(6))
    stored = torch.randn(6, 5, generator=draw, dtype=torch.float64)
    change = LowRank(*(torch.randn(*shape, generator=draw, dtype=torch.float64) for shape in ((6, 2), (2, 5))))
    for given in (change, Dense(change.dense())):
        left = AlignedRows(stored - way.back(given).dense(), way)[...]
        assert torch.allclose(left, AlignedRows(stored, way)[...] - change.dense())
