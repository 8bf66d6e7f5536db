"""What a recipe will take: counted where it can be counted, against the model, PEFT and trl themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from peft import LoraConfig, get_peft_model
from typer.testing import CliRunner

from unmerge.cli import app
from unmerge.core.errors import BadInput
from unmerge.core.examples import Example, write_examples
from unmerge.evaluation.models import load_model
from unmerge.training import Lora, Schedule, TrainingRecipe, train_adapters
from unmerge.training.plan import Architecture, plan
from unmerge.training.recipe import AdapterEntry

QWEN = Path(__file__).parents[2] / "studies" / "qwen2.5-7b.train.yml"
COUNT = 10


@pytest.fixture
def recipe(zoo: Path, tmp_path: Path) -> TrainingRecipe:
    write_examples(tmp_path / "train.jsonl", [Example(f"Repeat: {'x' * place}\n", "y") for place in range(COUNT)])
    entry = AdapterEntry(train=tmp_path / "train.jsonl")
    return TrainingRecipe(base=zoo / "zoo-base", lora=Lora(rank=3), training=Schedule(epochs=1.5, batch_size=4), adapters={"one": entry})


@pytest.mark.parametrize("modules", ["all-linear", ["q_proj", "down_proj"]])
def test_parameters(modules: str | list[str], recipe: TrainingRecipe) -> None:
    """As many as the model has in its matrices, and as PEFT trains."""
    model, _ = load_model(recipe.base)
    matrices = {values.data_ptr(): values.numel() for values in model.parameters() if values.ndim == 2}
    lora = Lora(rank=3, target_modules=modules)
    found = plan(recipe.model_copy(update={"lora": lora}))
    assert found.parameters == sum(matrices.values())
    wrapped = get_peft_model(model, LoraConfig(r=3, target_modules=modules))
    assert found.trained == sum(values.numel() for values in wrapped.parameters() if values.requires_grad)
    full = plan(recipe.model_copy(update={"lora": None}))
    assert full.trained == full.parameters
    assert full.memory_gib["weights"] == 0


def test_steps(recipe: TrainingRecipe, tmp_path: Path) -> None:
    """As many as the trainer takes, also where a part of a batch and a part of an epoch are left."""
    told: list[int] = []
    asked = recipe.model_copy(update={"training": Schedule(epochs=1.5, batch_size=4, micro_batch=2)})
    train_adapters(asked, tmp_path / "out", lambda _: lambda _done, total: told.append(total))
    assert plan(asked).adapters["one"].steps == told[-1] == len(told)
    assert plan(recipe).adapters["one"].counted
    assert plan(recipe).adapters["one"].examples == COUNT


def test_what_saves_memory_and_time(recipe: TrainingRecipe) -> None:
    def taken(**settings: Any) -> tuple[float, float]:
        training = recipe.training.model_copy(update={"dtype": "bfloat16", **settings})
        found = plan(recipe.model_copy(update={"training": training}))
        return found.total_gib, found.hours

    wide, short = taken(), taken(weights="bfloat16")
    assert short[0] < wide[0]
    assert taken(weights="nf4")[0] < short[0]
    assert taken(weights="nf4")[1] > short[1]
    assert taken(gradient_checkpointing=True)[0] < wide[0]
    assert taken(gradient_checkpointing=True)[1] == pytest.approx(1.5 * wide[1])
    assert taken(micro_batch=1)[0] < wide[0]
    assert taken(epochs=3)[1] == pytest.approx(2 * wide[1])


def test_qwen() -> None:
    """The proposal's base, card and settings; its makers publish 7.61 billion parameters, and a LoRA of rank 32 has 80.7 million."""
    recipe = TrainingRecipe.read(QWEN)
    found = plan(recipe)
    assert len(found.adapters) == 25
    assert found.parameters == pytest.approx(7.615e9, rel=1e-3)
    assert found.trained == 80_740_352
    assert found.total_gib < 24
    assert plan(recipe.model_copy(update={"training": recipe.training.model_copy(update={"weights": "bfloat16"})})).total_gib < 24
    assert (recipe.lora, recipe.training.learning_rate, recipe.training.epochs) == (Lora(rank=32, alpha=32), 2e-4, 3)
    kinds = [entry.category for entry in recipe.adapters.values()]
    assert {kind: kinds.count(kind) for kind in kinds} == dict.fromkeys(("code", "structure", "logic", "style", "other"), 5)
    assert len({entry.seed for entry in recipe.adapters.values()}) == 25
    assert all(entry.metric and entry.held_out and entry.description for entry in recipe.adapters.values())


def test_command(recipe: TrainingRecipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    result = CliRunner().invoke(app, ["train", str(QWEN), "--dry-run"])
    assert result.exit_code == 0, result.output
    for text in ("pandas", "~700", "memory: ~", "fits 24 GB", "on one RTX 3090", "Estimates"):
        assert text in result.stdout
    refused = CliRunner().invoke(app, ["train", str(QWEN)])
    assert refused.exit_code == 2
    assert refused.stderr == "unmerge: --out: expected a folder to make, found none; name one, or give --dry-run\n"


def test_nothing_to_go_by(recipe: TrainingRecipe) -> None:
    for update, text in (
        ({"base": Path("someone/base")}, "someone/base: expected the base's shapes, found a name on the hub; give them as 'architecture'"),
        (
            {"architecture": {"hidden_size": 8}},
            "architecture: expected a decoder's sizes, as in config.json, found intermediate_size: Field",
        ),
    ):
        with pytest.raises(BadInput) as caught:
            plan(recipe.model_copy(update=update))
        assert str(caught.value).startswith(text)
    lone = QWEN.read_text().replace("about: {examples: 700, tokens: 250}", "")
    assert lone != QWEN.read_text()
    entry = TrainingRecipe.read(QWEN).adapters["numpy"].model_copy(update={"about": None})
    with pytest.raises(BadInput, match="expected how many examples there are, found nothing; add about"):
        plan(TrainingRecipe.read(QWEN).model_copy(update={"adapters": {"numpy": entry}}))
    assert Architecture.model_validate({**TrainingRecipe.read(QWEN).architecture, "tie_word_embeddings": True}).in_vocabulary == 152064 * 3584  # type: ignore[dict-item]
