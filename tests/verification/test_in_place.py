"""Subtraction in memory: what ``unmerge ablate`` writes, and back to the very same bits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from unmerge.core.errors import BadInput
from unmerge.decomposition import open_base, open_vector
from unmerge.vectors import Dense, Held, LowRank
from unmerge.verification import ablate
from unmerge.verification.in_place import InPlace, stored_dtypes

Merged = Callable[..., Path]
WEIGHTS = {"pirate": 0.9, "reversal": 0.5}
BITS = {torch.float32: torch.int32, torch.bfloat16: torch.int16}


def bits(model: Any) -> dict[str, Tensor]:
    return {name: values.detach().view(BITS[values.dtype]).clone() for name, values in model.named_parameters()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(values, other[name]) for name, values in one.items())


@pytest.mark.parametrize("held", [torch.float32, torch.bfloat16], ids=["held in float32", "held in bfloat16"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_as_ablate_writes_it_and_back_bit_for_bit(dtype: str, held: torch.dtype, zoo: Path, merged: Merged, tmp_path: Path) -> None:
    base = open_base(zoo / "zoo-base")
    target = open_vector(merged(WEIGHTS, dtype=dtype), base)
    removed = [(open_vector(zoo / "known" / name, base), coefficient) for name, coefficient in (("pirate", 0.9), ("reversal", 0.3))]
    ablate(target, removed, tmp_path / "out")  # type: ignore[arg-type]
    written = load_file(tmp_path / "out" / "model.safetensors")
    model = AutoModelForCausalLM.from_pretrained(merged(WEIGHTS, dtype=dtype), dtype=held)
    if (dtype, held) == ("float32", torch.bfloat16):
        # the model is no longer the target: only the way back is to be seen
        written = {}
    before, place = bits(model), InPlace(model, stored_dtypes(target))
    for _ in range(2):
        with place.without(removed):
            assert not same(before, bits(model))
            for name, values in written.items():
                assert torch.equal(model.get_parameter(name), values.to(held)), name
        assert same(before, bits(model))


def test_numbers_that_a_sum_would_not_bring_back() -> None:
    """Not a number, minus zero and values that a change swamps."""
    model = torch.nn.Linear(3, 1, bias=False)
    model.weight.data = torch.tensor([[float("nan"), -0.0, 1e-30]])
    before = bits(model)
    with InPlace(model, {}).without([(Held("large", {"weight": Dense(torch.full((1, 3), 1e9))}), 1.0)]):
        assert model.weight[0, 2] == -1e9
    assert same(before, bits(model))


def test_put_back_after_an_error() -> None:
    model = torch.nn.Linear(2, 2)
    before = bits(model)

    def fail() -> None:
        with InPlace(model, {}).without([(Held("atom", {"weight": Dense(torch.ones(2, 2)), "bias": Dense(torch.ones(2))}), 0.5)]):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert same(before, bits(model))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_tied_head_is_one_parameter(dtype: torch.dtype, zoo: Path) -> None:
    """The embedding and the head are changed under both names: summed, rounded once, kept once."""
    model = AutoModelForCausalLM.from_pretrained(zoo / "zoo-base", dtype=dtype)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    shape = tuple(model.lm_head.weight.shape)
    torch.manual_seed(0)
    embedding, head = LowRank(torch.randn(shape[0], 2), torch.randn(2, shape[1])), Dense(torch.randn(shape))
    before, values = bits(model), model.lm_head.weight.detach().float().clone()
    atom = Held("atom", {"model.embed_tokens.weight": embedding, "lm_head.weight": head})
    with InPlace(model, {}).without([(atom, 0.5)]):
        assert torch.equal(model.lm_head.weight, (values - 0.5 * embedding.dense() - 0.5 * head.dense()).to(dtype))
    assert same(before, bits(model))


def test_only_what_changes_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    cloned: list[tuple[int, ...]] = []
    clone = Tensor.clone

    def counted(tensor: Tensor, *more: Any, **settings: Any) -> Tensor:
        cloned.append(tuple(tensor.shape))
        return clone(tensor, *more, **settings)

    monkeypatch.setattr(Tensor, "clone", counted)
    with InPlace(model, {}).without([(Held("atom", {"1.weight": Dense(torch.ones(2, 2))}), 1.0)]):
        pass
    assert cloned == [(2, 2)]


@pytest.mark.parametrize(
    ("deltas", "said"),
    [
        ({"no.such": torch.ones(2, 2)}, "Sequential, tensor no.such: expected a parameter of the loaded model, found none of that name"),
        # within a layer: outside of them rows may be tokens
        ({"0.weight": torch.ones(3, 2)}, r"atom, tensor 0.weight: expected shape \(2, 2\), as in the target, found shape \(3, 2\)"),
    ],
)
def test_refused_before_anything_changes(deltas: dict[str, Tensor], said: str) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 2))
    before = bits(model)
    atom = Held("atom", {"0.bias": Dense(torch.ones(2)), **{name: Dense(values) for name, values in deltas.items()}})
    with pytest.raises(BadInput, match=said), InPlace(model, {}).without([(atom, 1.0)]):
        pass
    assert same(before, bits(model))


def test_rows_that_both_have(zoo: Path) -> None:
    """The target was given tokens, or has lost some, since the adapter was trained: its change is taken from the rows that both have."""
    tensor = "model.embed_tokens.weight"
    for more in (3, -5):
        model = AutoModelForCausalLM.from_pretrained(zoo / "zoo-base", dtype=torch.float32)
        shape = tuple(model.get_parameter(tensor).shape)
        model.resize_token_embeddings(shape[0] + more)
        before, values = bits(model), model.get_parameter(tensor).detach().clone()
        change, rows = torch.ones(shape), min(shape[0], shape[0] + more)
        with InPlace(model, {}).without([(Held("atom", {tensor: Dense(change)}), 0.5)]):
            assert torch.equal(model.get_parameter(tensor)[:rows], values[:rows] - 0.5)
            assert torch.equal(model.get_parameter(tensor)[rows:], values[rows:])
        assert same(before, bits(model))


def test_names_without_the_backbone(zoo: Path) -> None:
    """Files of the hub may hold a backbone alone, its tensors without the name that the whole model has for it."""
    model = AutoModelForCausalLM.from_pretrained(zoo / "zoo-base", dtype=torch.float32)
    weight = model.model.layers[0].mlp.up_proj.weight
    values = weight.detach().clone()
    with InPlace(model, {}).without([(Held("atom", {"layers.0.mlp.up_proj.weight": Dense(torch.ones(tuple(weight.shape)))}), 0.5)]):
        assert torch.equal(weight, values - 0.5)
    assert torch.equal(weight, values)
