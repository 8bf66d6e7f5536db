"""A block of the zoo's base: the same logits and gradients as the model itself, adapters that PEFT reads, and the experiment in small."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import PeftModel

from unmerge.checkpoints import Adapter
from unmerge.checkpoints.write_adapter import write_adapter
from unmerge.circuits.decompose import decompose
from unmerge.circuits.divergences import kl
from unmerge.circuits.settings import Settings
from unmerge.vectors import LowRank
from unmerge_lab.circuits import language_study, language_verify
from unmerge_lab.circuits.language import Language, NextToken, Prompts, low_rank
from unmerge_lab.zoo import TASKS


@pytest.fixture(scope="module")
def language() -> Language:
    return Language.open(3)


@pytest.fixture(scope="module")
def prompts(language: Language) -> Prompts:
    return Prompts.of_tasks(TASKS[:2], language.tokenizer, 4)


def test_outputs_are_the_logits_after_the_prompt(language: Language, prompts: Prompts) -> None:
    outputs = language.landscape.outputs(prompts.asked[None])[0]
    for sample, output in zip(prompts.asked, outputs, strict=True):
        prompt = sample[: int(sample[-1]) + 1]
        with torch.no_grad():
            torch.testing.assert_close(output, language.model(input_ids=prompt[None]).logits[0, -1], atol=1e-4, rtol=1e-4)


def test_gradients_are_those_of_backward(language: Language, prompts: Prompts) -> None:
    goals = language.landscape.outputs(prompts.commanded[None])
    gradients = language.landscape.gradients(prompts.asked[None, :2], goals[:, :2])
    name = next(iter(gradients))
    weight = language.model.get_parameter(language.tensor(name))
    weight.requires_grad_()
    kl(NextToken(language.model)(prompts.asked[1:2])[0], goals[0, 1]).backward()
    torch.testing.assert_close(gradients[name][0, 1], weight.grad, atol=1e-5, rtol=1e-3)
    weight.grad = None
    weight.requires_grad_(False)


def test_a_subnetwork_is_an_adapter_for_peft(language: Language, prompts: Prompts, tmp_path: Path) -> None:
    settings = Settings(subnetworks=2, rank=2, epochs=1, batch=4)
    found = decompose(language.landscape, prompts.asked[None], settings)
    parts = low_rank(found, 1, -1.5)
    for name, part in parts.items():
        torch.testing.assert_close(part.dense(), -1.5 * found.decoder.one(1)[name][0])
    write_adapter(tmp_path / "one", {language.tensor(name): part for name, part in parts.items()}, "unmerge/zoo-base")
    moved = language.landscape.outputs(prompts.asked[None], language.landscape.moved(found.decoder.one(1), -1.5))[0]
    fresh = Language.open(3)
    adapted = PeftModel.from_pretrained(fresh.model, tmp_path / "one")
    with torch.no_grad():
        torch.testing.assert_close(NextToken(adapted.base_model.model)(prompts.asked), moved, atol=1e-4, rtol=1e-4)


def test_scores_leave_the_model_as_it_was(language: Language) -> None:
    name = next(iter(language.landscape.parameters))
    before = language.model.get_parameter(language.tensor(name)).clone()
    items = {"task": TASKS[0].held_out(2)}
    assert language.scores({name: torch.full_like(before, 10.0)}, items) == {"task": 0.0}
    assert torch.equal(language.model.get_parameter(language.tensor(name)), before)


def test_containment_is_one_inside_and_the_share_of_dimensions_outside(zoo: Path) -> None:
    adapter = Adapter.open(zoo / "known" / "pirate")
    tensor = "model.layers.3.mlp.up_proj.weight"
    delta = adapter.delta(tensor)
    assert isinstance(delta, LowRank)
    inside = LowRank(delta.b[:, :2], delta.a[:2])
    assert language_study.containment({tensor: inside}, {tensor: delta}) == pytest.approx(1, abs=1e-5)
    torch.manual_seed(0)
    values = [language_study.containment({tensor: LowRank(torch.randn(256, 2), torch.randn(2, 128))}, {tensor: delta}) for _ in range(40)]
    assert sum(values) / 40 == pytest.approx(8 / 256 * 8 / 128, rel=0.5)


def test_a_direction_goes_through_verify(zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(language_verify, "ITEMS", 2)
    parts = [zoo / "known" / name for name in ("opposite", "parity")]
    language_verify.write_sum(tmp_path / "sum", parts)
    tensor = "model.layers.3.mlp.up_proj.weight"
    expected = torch.stack([Adapter.open(part).delta(tensor).dense() for part in parts]).sum(0)
    torch.testing.assert_close(Adapter.open(tmp_path / "sum").delta(tensor).dense(), expected)
    result = language_verify.verify_subnetworks(tmp_path / "sum", parts, {"parity": 1.0}, 0)
    assert result["named"] == {"opposite": pytest.approx(1), "parity": pytest.approx(1)}
    [row] = result["components"]
    assert (row["removed"], row["before"], row["after"]) == ("parity", 1.0, 0.0)


def test_the_experiment_in_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pirate = [task for task in TASKS if task.name in ("pirate", "opposite")]
    for name, value in {
        "TASKS": pirate,
        "PROMPTS": 16,
        "ITEMS": 2,
        "STEPS": (1.0,),
        "TUNED": ("pirate",),
        "TUNING_STEPS": 2,
        "TUNING_EXAMPLES": 4,
        "INSIDE": 1,
    }.items():
        monkeypatch.setattr(language_study, name, value)
    record = language_study.study_language(tmp_path / "out", lambda _: lambda *_: None, subnetworks=2, rank=1, epochs=1)
    row = record["contrastive"]["tasks"][0]
    assert row["task"] in ("pirate", "opposite")
    assert 0 <= row["containment"] <= 1
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"language.json", "adapters-contrastive", "adapters-random"}
    atoms = sorted(path.name for path in (tmp_path / "out" / "adapters-contrastive").iterdir())
    assert atoms == ["opposite", "pirate"]
    assert set(Adapter.open(tmp_path / "out" / "adapters-random" / "pirate").shapes) == {
        name.removeprefix("model.") for name in Language.open(3).landscape.parameters
    }
