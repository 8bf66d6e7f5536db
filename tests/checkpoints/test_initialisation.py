"""PiSSA and OLoRA: what acts on the base as it was, against PEFT's own merge of the model that was trained."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from torch import Tensor

from unmerge.checkpoints import Adapter, Checkpoint
from unmerge.checkpoints.initialisation import OLORA, PISSA, RANDOMISED, leading_part, less, start_of, taken_out
from unmerge.core.errors import BadInput
from unmerge.vectors import LowRank, is_large

MODULES = ["q_proj", "k_proj", "down_proj"]


def trained(lab: Any, base: Path, start: str, **settings: Any) -> tuple[Path, dict[str, Tensor]]:
    """An adapter after three steps of training, and what the trained model's own merge changes in the base as it was."""
    folder: Path = lab.place()
    before = {name: values.clone().double() for name, values in lab.load(base).state_dict().items()}
    torch.manual_seed(2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = peft.LoraConfig(**{"r": 3, "lora_alpha": 5, "target_modules": MODULES, "init_lora_weights": start} | settings)
        model = peft.get_peft_model(lab.load(base), config)
        optimizer = torch.optim.SGD([parameter for parameter in model.parameters() if parameter.requires_grad], lr=0.05)
        for _ in range(3):
            tokens = torch.randint(0, 32, (4, 8))
            model(input_ids=tokens, labels=tokens).loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
        model.save_pretrained(folder)
        after = model.merge_and_unload().state_dict()
    return folder, {name: values.double() - before[name] for name, values in after.items()}


def marked(folder: Path, start: object) -> Path:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"init_lora_weights": start}))
    return folder


def error(adapter: Adapter, truth: dict[str, Tensor]) -> float:
    """||what is read - what changed|| / ||what changed|| over all tensors that the adapter changes; no other one changed."""
    assert all(float(values.norm()) < 1e-4 for name, values in truth.items() if name not in adapter.shapes)
    wrong = sum(float((adapter.delta(name).dense().double() - truth[name]).square().sum()) for name in adapter.shapes)
    return float((wrong / sum(float(truth[name].square().sum()) for name in adapter.shapes)) ** 0.5)


CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "pissa": ("qwen", "pissa", {}),
    "pissa, rslora and ranks of its own": ("qwen", "pissa", {"use_rslora": True, "rank_pattern": {"q_proj": 2}, "alpha_pattern": {"k_proj": 7}}),
    "pissa of transposed matrices": ("gpt2", "pissa", {"target_modules": ["c_attn", "c_proj"], "fan_in_fan_out": True}),
    "olora": ("qwen", "olora", {}),
}


@pytest.mark.parametrize("name", CASES)
def test_what_the_factors_took_out_of_the_base_is_taken_off(name: str, lab: Any, bases: dict[str, Path]) -> None:
    """Within 1% of the change, which is a few hundredths of what was taken out: their product alone is off by many times the change."""
    base, start, settings = CASES[name]
    folder, truth = trained(lab, bases[base], start, **settings)
    adapter = Adapter.open(folder, Checkpoint.open(bases[base]))
    assert error(adapter, truth) < 0.01
    assert adapter.needs_base
    assert all(isinstance(adapter.delta(tensor), LowRank) for tensor in adapter.shapes)
    (note,) = adapter.notes
    assert f"init_lora_weights={start}" in note
    plain = Adapter.open(marked(folder, True), Checkpoint.open(bases[base]))
    assert error(plain, truth) < 0.01
    assert "which its configuration does not say), which was taken off their product" in plain.notes[0]
    products = Adapter.open(folder)  # without a base nothing shows it
    assert products.notes == ()
    if products.shapes == adapter.shapes:  # it does not show a transposed base either
        assert error(products, truth) > 5


def test_a_start_in_the_base_needs_that_base(lab: Any, bases: dict[str, Path], qwen_config: Callable[..., Any]) -> None:
    folder, _ = trained(lab, bases["qwen"], "pissa")
    with pytest.raises(BadInput) as caught:
        Adapter.open(folder)
    assert str(caught.value) == (
        f"{folder / 'adapter_config.json'}: expected the base, since init_lora_weights=pissa took the factors out of it, found none; "
        "give it with --base, as it was before the training"
    )
    other = Checkpoint.open(lab.base(qwen_config(), seed=5))
    with pytest.raises(BadInput, match="expected factors that init_lora_weights=pissa leaves, found others; give the base"):
        Adapter.open(folder, other)
    assert Adapter.open(marked(folder, True), other).notes == (), "as a plain adapter to another base: nothing speaks against it"


def test_a_converted_adapter_is_a_plain_one(lab: Any, bases: dict[str, Path]) -> None:
    """PEFT's conversion makes the difference of two products: its factors lie along the base's, its product does not."""
    base, config = bases["qwen"], peft.LoraConfig(r=3, target_modules=MODULES, init_lora_weights="pissa")
    folder = lab.adapter(base, config, path_initial_model_for_weight_conversion=str(lab.place()))
    adapter = Adapter.open(folder, Checkpoint.open(base))
    assert adapter.start is None
    assert adapter.notes == ()


@pytest.mark.parametrize("rank", [4, 16])
@pytest.mark.parametrize("decay", [0.0, 0.4])
def test_the_leading_part_of_a_large_matrix(rank: int, decay: float) -> None:
    """Block Krylov from the trained factors against the full decomposition, of flat and of decaying spectra."""
    generator = torch.Generator().manual_seed(rank)
    left, values, right = torch.linalg.svd(torch.randn(640, 512, generator=generator, dtype=torch.float64), full_matrices=False)
    values *= torch.arange(1, 513) ** -decay
    weights = ((left * values) @ right).float()
    assert is_large(tuple(weights.shape))
    start = LowRank((left[:, :rank] * values[:rank]).float(), right[:rank].float())
    moved = LowRank(start.b + 0.1 * start.b.std() * torch.randn(start.b.shape, generator=generator), start.a)
    found = leading_part(weights, moved)
    assert float(torch.linalg.matrix_norm(less(found, start).dense()) / torch.linalg.matrix_norm(start.dense())) < 1e-4
    assert start_of(weights, moved, 1.0) == PISSA


@pytest.mark.parametrize("size", [1e-3, 1e-2, 0.1, 1.0])
def test_an_ordinary_adapter_is_none(size: float) -> None:
    """Whatever its size, and even if its factors lie along the base's leading directions with other strengths."""
    generator = torch.Generator().manual_seed(1)
    weights = torch.randn(64, 48, generator=generator) * 0.05
    random = LowRank(torch.randn(64, 4, generator=generator) * size, torch.randn(4, 48, generator=generator) * size)
    left, values, right = torch.linalg.svd(weights, full_matrices=False)
    along = LowRank(left[:, :4] * values[:4] * size * torch.tensor([1.0, -1.0, 1.0, -1.0]), right[:4])
    assert start_of(weights, random, 1.0) is None
    assert start_of(weights, along, 1.0) is None


@pytest.mark.parametrize("moved", [0.005, 0.05])
@pytest.mark.parametrize("start", [PISSA, OLORA, RANDOMISED])
def test_starts_are_told_apart(start: str, moved: float) -> None:
    """Whatever is said of them; by the base and the factors alone."""
    torch.manual_seed(3)
    left, values, right = torch.linalg.svd(torch.randn(96, 64), full_matrices=False)
    weights = (left * values * torch.arange(1, 65) ** -0.3) @ right
    scale, rank = 2.0, 6
    if start == RANDOMISED:
        u, s, v = torch.svd_lowrank(weights, rank, niter=4)
        initial = LowRank(u * s, v.T)
    else:
        initial = taken_out(start, weights, LowRank(torch.zeros(96, rank), torch.zeros(rank, 64)), scale)
    b, a = (side + moved * side.std() * torch.randn_like(side) for side in (initial.b, initial.a))
    assert start_of(weights, LowRank(b, a), scale) == start


def test_a_randomised_start_is_refused(lab: Any, bases: dict[str, Path]) -> None:
    """Its error is of the size of the change, and a coefficient would be wrong."""
    for start in ("pissa_niter_2", True):
        folder, _ = trained(lab, bases["qwen"], "pissa_niter_2")
        with pytest.raises(BadInput, match=r"found factors that were taken out of it by a randomised decomposition \(pissa_niter_N\), which cannot"):
            Adapter.open(marked(folder, start), Checkpoint.open(bases["qwen"]))
