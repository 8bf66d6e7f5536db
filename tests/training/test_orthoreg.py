"""OrthoReg's penalty from the factors against the dense matrix, its gradient, and what it does to a training run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor

from unmerge.core.errors import BadInput
from unmerge.core.examples import Example
from unmerge.evaluation.models import load_model
from unmerge.training import Lora, Schedule
from unmerge.training.finetune import finetune
from unmerge.training.orthoreg import penalty, penalty_of

SHAPES = [(5, 7, 2), (7, 5, 3), (4, 4, 4), (3, 6, 1), (4, 3, 6)]  # (out, in, rank); in the last one the rank is larger than either


def dense(up: Tensor, down: Tensor, scale: float) -> Tensor:
    change = scale * up @ down
    return torch.linalg.matrix_norm(change.T @ change - torch.eye(change.shape[1])) ** 2


@pytest.mark.parametrize(("out", "inside", "rank"), SHAPES)
@pytest.mark.parametrize("scale", [1.0, 0.25])
def test_against_the_dense_matrix(out: int, inside: int, rank: int, scale: float) -> None:
    generator = torch.Generator().manual_seed(out * inside + rank)
    up, down = (torch.randn(*shape, generator=generator, requires_grad=True) for shape in ((out, rank), (rank, inside)))
    ours, theirs = penalty(up, down, scale), dense(up, down, scale)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-4)
    for one, other in zip(torch.autograd.grad(ours, (up, down)), torch.autograd.grad(theirs, (up, down)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4 * float(other.abs().max()))


def test_least_where_the_singular_values_are_one() -> None:
    """n - r is the least of a LoRA, and the gradient is zero there; so it is at an untrained one, where the penalty is n."""
    left, right = (torch.linalg.qr(torch.randn(size, 3, generator=torch.Generator().manual_seed(size)))[0] for size in (8, 6))
    for start, expected in ((left, 3.0), (torch.zeros_like(left), 6.0)):
        up = start.clone().requires_grad_()
        value = penalty(up, right.T)
        assert value.item() == pytest.approx(expected, abs=1e-5)
        (gradient,) = torch.autograd.grad(value, up)
        assert float(gradient.abs().max()) < 1e-5
    assert float(penalty(1.1 * left, right.T)) > 3.0 < float(penalty(0.9 * left, right.T))


def test_of_a_model(zoo: Path) -> None:
    """The sum over all modules that a LoRA changes, with PEFT's own scale."""
    model, _ = load_model(zoo / "zoo-base")
    wrapped = get_peft_model(model, LoraConfig(r=2, lora_alpha=3, target_modules=["q_proj", "down_proj"], init_lora_weights=False))
    factors = dict(wrapped.named_parameters())
    expected = sum(
        dense(factors[name.replace("lora_A", "lora_B")], down, 1.5) for name, down in factors.items() if name.endswith("lora_A.default.weight")
    )
    assert isinstance(expected, Tensor)
    torch.testing.assert_close(penalty_of(wrapped), expected, rtol=1e-4, atol=1e-3)
    penalty_of(wrapped).backward()
    assert all(values.grad is not None and values.grad.any() for values in factors.values() if values.requires_grad)


@pytest.fixture(scope="module")
def examples() -> list[Example]:
    return [Example(f"Repeat: {word}\n", word) for word in "cat dog sun tree".split()]


def trained(zoo: Path, examples: list[Example], **settings: object) -> dict[str, Tensor]:
    model, tokenizer = load_model(zoo / "zoo-base")
    schedule = Schedule.model_validate({"learning_rate": 1e-2, "epochs": 3, "batch_size": 2, **settings})
    found = finetune(model, tokenizer, examples, schedule, seed=0, lora=Lora(rank=2, alpha=2, target_modules=["v_proj"]))
    return {name: values.detach() for name, values in found.named_parameters() if "lora_" in name}


def test_in_training(zoo: Path, examples: list[Example]) -> None:
    """With the penalty singular values grow towards one; two parts of a batch weigh the penalty as the whole does."""

    def norm(factors: dict[str, Tensor]) -> float:
        return sum(float((values @ factors[name.replace("lora_B", "lora_A")]).norm()) for name, values in factors.items() if "lora_B" in name)

    plain, pulled, parts = (trained(zoo, examples, **settings) for settings in ({}, {"orthoreg": 10.0}, {"orthoreg": 10.0, "micro_batch": 1}))
    assert norm(pulled) > 1.1 * norm(plain)
    for name, values in pulled.items():
        torch.testing.assert_close(values, parts[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("lora", [None, Lora(rank=2, use_dora=True)])
def test_only_of_plain_loras(zoo: Path, examples: list[Example], lora: Lora | None) -> None:
    model, tokenizer = load_model(zoo / "zoo-base")
    with pytest.raises(BadInput, match="the training recipe: expected a plain LoRA, with orthoreg, found"):
        finetune(model, tokenizer, examples, Schedule(orthoreg=0.1), seed=0, lora=lora)
