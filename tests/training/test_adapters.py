"""Phase 1 for real, on the zoo's base with a handful of steps: PEFT folders, records, interruption, bad data."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from unmerge.checkpoints import Difference
from unmerge.core.errors import BadInput
from unmerge.core.examples import Example, read_examples, write_examples
from unmerge.core.records import sha256
from unmerge.decomposition import open_base, open_dictionary
from unmerge.evaluation import exact_match
from unmerge.evaluation.models import load_model
from unmerge.evaluation.task_files import RECORD
from unmerge.training import AdapterRecord, Lora, Schedule, TrainingRecipe, train_adapters
from unmerge.training.finetune import Watch
from unmerge.training.recipe import AdapterEntry
from unmerge_lab.zoo import TASKS

STEPS = 2


def quiet(name: str) -> Watch:
    return lambda *_: None


@pytest.fixture
def recipe(zoo: Path, tmp_path: Path) -> TrainingRecipe:
    """Two adapters of two steps each."""
    entries = {}
    for place, task in enumerate(TASKS[:2]):
        items = task.held_out(12)
        train, held_out = tmp_path / f"{task.name}.train.jsonl", tmp_path / f"{task.name}.held_out.jsonl"
        write_examples(train, items[:8])
        write_examples(held_out, items[8:])
        entries[task.name] = AdapterEntry(train=train, held_out=held_out, description=task.description, category=task.category, seed=place + 5)
    settings = Schedule(learning_rate=1e-2, epochs=1, batch_size=8 // STEPS)
    return TrainingRecipe(base=zoo / "zoo-base", base_name="someone/base", lora=Lora(rank=2, alpha=4), training=settings, adapters=entries)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter_model.safetensors")


def test_training(recipe: TrainingRecipe, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # what libraries say to each other is not for the user
        records = train_adapters(recipe, tmp_path / "out", lambda name: lambda done, total: told.append((name, done, total)))
    assert told == [(name, step, STEPS) for name in recipe.adapters for step in range(1, STEPS + 1)]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(recipe.adapters)
    _, tokenizer = load_model(recipe.base)
    for name, entry in recipe.adapters.items():
        folder = tmp_path / "out" / name
        record = AdapterRecord.read(folder)
        assert record == records[name]
        assert (record.task, record.category, record.description) == (name, entry.category, entry.description)
        assert (record.seed, record.lora, record.training, record.examples) == (entry.seed, recipe.lora, recipe.training, 8)
        assert record.data == {file.name: sha256(file) for file in (entry.train, entry.held_out)}
        assert {"torch", "peft", "trl", "transformers"} <= record.environment.versions.keys()
        config = json.loads((folder / "adapter_config.json").read_text())
        assert (config["base_model_name_or_path"], config["r"], config["lora_alpha"]) == ("someone/base", 2, 4)
        assert str(tmp_path) not in (folder / "adapter_config.json").read_text() + (folder / RECORD).read_text()
        # PEFT loads it, it does something, and the recorded score is that of what was saved
        items = [Example(**json.loads(line)) for line in entry.held_out.read_text().splitlines()] if entry.held_out else []
        model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(recipe.base, dtype=torch.float32), folder)
        right = exact_match(model, tokenizer, items)
        assert record.held_out_items == len(items) == 4
        assert record.held_out_exact_match == sum(right) / len(right)
        assert any(values.any() for key, values in weights(folder).items() if "lora_B" in key)
    first, second = (weights(tmp_path / "out" / name) for name in recipe.adapters)
    key = next(iter(first))
    assert not torch.equal(first[key], second[key])


def test_same_seed_same_adapter(recipe: TrainingRecipe, tmp_path: Path) -> None:
    name = next(iter(recipe.adapters))
    entry = recipe.adapters[name]
    again = recipe.model_copy(update={"adapters": {"one": entry, "two": entry, "three": entry.model_copy(update={"seed": 77})}})
    train_adapters(again, tmp_path / "out", quiet)
    one, two, three = (weights(tmp_path / "out" / name) for name in again.adapters)
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert not all(torch.equal(one[key], three[key]) for key in one)


def test_interrupted_and_resumed(recipe: TrainingRecipe, tmp_path: Path) -> None:
    """Ctrl-C while the second adapter trains: the first is not trained again, and the second is."""
    first, second = recipe.adapters
    out, partial = tmp_path / "out", tmp_path / ".out.partial"

    def interrupting(name: str) -> Watch:
        def tell(done: int, total: int) -> None:
            if name == second:
                raise KeyboardInterrupt

        return tell

    with pytest.raises(KeyboardInterrupt):
        train_adapters(recipe, out, interrupting)
    assert not out.exists()
    assert sorted(path.name for path in partial.iterdir()) == [".job.json", first]
    before = (partial / first / "adapter_model.safetensors").stat()
    trained: list[str] = []
    records = train_adapters(recipe, out, lambda name: lambda *_: trained.append(name))
    assert set(trained) == {second}
    assert records.keys() == {first, second}
    after = (out / first / "adapter_model.safetensors").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert not partial.exists()


def test_without_lora(recipe: TrainingRecipe, tmp_path: Path) -> None:
    """All weights are trained, and saved in the base's own precision: a checkpoint that a dictionary takes as an atom."""
    first = next(iter(recipe.adapters))
    recipe = recipe.model_copy(update={"lora": None, "adapters": {first: recipe.adapters[first]}})
    record = train_adapters(recipe, tmp_path / "out", quiet)[first]
    folder = tmp_path / "out" / first
    assert record == AdapterRecord.read(folder)
    assert record.lora is None
    base, tuned = (load_file(place / "model.safetensors") for place in (recipe.base, folder))
    assert base.keys() == tuned.keys()
    assert all(tuned[name].dtype == values.dtype == torch.bfloat16 for name, values in base.items())
    assert all(not torch.equal(tuned[name], values) for name, values in base.items() if values.ndim == 2)
    entry = recipe.adapters[first]
    model, tokenizer = load_model(folder)
    right = exact_match(model, tokenizer, read_examples(entry.held_out) if entry.held_out else [])
    assert record.held_out_exact_match == sum(right) / len(right)
    (atom,) = open_dictionary([tmp_path / "out"], open_base(recipe.base)).atoms
    assert isinstance(atom, Difference)
    assert atom.name == first
    assert not any(str(tmp_path) in file.read_text() for file in folder.glob("*.json"))


@pytest.mark.parametrize("change", ["seed", "data"])
def test_what_another_recipe_left_is_not_taken_up(change: str, recipe: TrainingRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[str] = []

    def stand_in(recipe: TrainingRecipe, name: str, folder: Path, watch: Watch | None = None, state: Path | None = None, data: Any = None) -> None:
        trained.append(name)
        folder.mkdir()
        if len(trained) == 2:
            raise KeyboardInterrupt
        shutil.copy(known / RECORD, folder)

    known = next((recipe.base.parent / "known").iterdir())
    monkeypatch.setattr("unmerge.training.adapters.train_adapter", stand_in)
    with pytest.raises(KeyboardInterrupt):
        train_adapters(recipe, tmp_path / "out", quiet)
    first, second = recipe.adapters
    if change == "seed":
        recipe = recipe.model_copy(update={"seed": 1})
    else:
        write_examples(recipe.adapters[first].train, [Example("a", "b")])
    train_adapters(recipe, tmp_path / "out", quiet)
    assert trained == [first, second, first, second]


def bad_data(folder: Path) -> Mapping[str, tuple[bytes | None, str]]:
    expected = 'expected JSON lines with "prompt" and "completion", found'
    return {
        "missing": (None, f"{expected} no such file; check the path in the recipe"),
        "empty": (b"", f"{expected} an empty file; add examples"),
        "no JSON": (b"prompt: x", f"{expected} JSONDecodeError"),
        "no completion": (b'{"prompt": "x"}', f"{expected} KeyError: 'completion'"),
        "no objects": (b"[1]", f"{expected} TypeError"),
        "no text": (b"\x80\x81", f"{expected} UnicodeDecodeError"),
    }


@pytest.mark.parametrize("which", ["train", "held_out"])
@pytest.mark.parametrize("name", bad_data(Path()))
def test_bad_data(name: str, which: str, recipe: TrainingRecipe, tmp_path: Path) -> None:
    """Every file is read before anything is trained, the last adapter's as well."""
    content, text = bad_data(tmp_path)[name]
    file = getattr(list(recipe.adapters.values())[-1], which)
    file.unlink() if content is None else file.write_bytes(content)
    with pytest.raises(BadInput) as caught:
        train_adapters(recipe, tmp_path / "out", lambda _: pytest.fail("nothing may be trained"))
    assert str(caught.value).startswith(f"{file}: {text}")
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / ".out.partial").exists()


def test_held_out_prompts_must_not_be_trained_on(recipe: TrainingRecipe, tmp_path: Path) -> None:
    entry = next(iter(recipe.adapters.values()))
    assert entry.held_out
    entry.held_out.write_text(entry.held_out.read_text() + entry.train.read_text().splitlines()[0])
    prompt = json.loads(entry.train.read_text().splitlines()[0])["prompt"]
    with pytest.raises(BadInput) as caught:
        train_adapters(recipe, tmp_path / "out", quiet)
    found = " ".join(f"1 in both files, such as {prompt!r}".split())
    assert str(caught.value) == f"{entry.held_out}: expected held-out prompts that are not trained on, found {found}; split the data again"


TOKENIZERS = {
    "none": (None, "expected a model with its tokenizer, found no tokenizer; save it beside the model (save_pretrained)"),
    "broken": ("{", "expected a causal language model with its tokenizer, found "),
}


@pytest.mark.parametrize("name", TOKENIZERS)
def test_base_without_tokenizer(name: str, recipe: TrainingRecipe, tmp_path: Path) -> None:
    """Where there is none transformers makes up an empty one, and training learns unknown tokens alone."""
    content, text = TOKENIZERS[name]
    bare = tmp_path / "bare"
    shutil.copytree(recipe.base, bare, ignore=shutil.ignore_patterns("tokenizer*"))
    if content:
        (bare / "tokenizer.json").write_text(content)
    with pytest.raises(BadInput) as caught:
        train_adapters(recipe.model_copy(update={"base": bare}), tmp_path / "out", quiet)
    assert str(caught.value).startswith(f"{bare}: {text}")
    assert not (tmp_path / ".out.partial").exists()


def test_no_base(recipe: TrainingRecipe, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"nowhere: expected a folder, found no such folder; check the path"):
        train_adapters(recipe.model_copy(update={"base": tmp_path / "nowhere"}), tmp_path / "out", quiet)


def test_options_of_lora(recipe: TrainingRecipe, tmp_path: Path) -> None:
    """rslora and DoRA as PEFT knows them, chosen modules, no held-out file."""
    name, entry = next(iter(recipe.adapters.items()))
    recipe = recipe.model_copy(
        update={
            "lora": Lora(rank=2, alpha=4, target_modules=["q_proj"], use_rslora=True, use_dora=True),
            "adapters": {name: entry.model_copy(update={"held_out": None})},
            "base_name": None,
        }
    )
    record: Any = train_adapters(recipe, tmp_path / "out", quiet)[name]
    assert record.held_out_exact_match is None
    assert record.held_out_items == 0
    config = json.loads((tmp_path / "out" / name / "adapter_config.json").read_text())
    assert (config["use_rslora"], config["use_dora"], config["target_modules"]) == (True, True, ["q_proj"])
    assert config["base_model_name_or_path"] == str(recipe.base)
    assert any("lora_magnitude_vector" in key for key in weights(tmp_path / "out" / name))


@pytest.mark.parametrize("held", ["bfloat16", "nf4"])
def test_in_little_memory(held: str, recipe: TrainingRecipe, tmp_path: Path) -> None:
    """A frozen base in 16 or 4 bits, activations computed again, parts of a batch, long examples cut: an adapter as any other comes out."""
    if held == "nf4":
        pytest.importorskip("bitsandbytes")
    name, entry = next(iter(recipe.adapters.items()))
    schedule = Schedule(
        learning_rate=1e-2,
        epochs=1,
        batch_size=4,
        micro_batch=2,
        dtype="bfloat16",
        weights=held,
        gradient_checkpointing=True,
        max_length=16,
        orthoreg=0.1,
    )  # type: ignore[arg-type]
    train_adapters(recipe.model_copy(update={"training": schedule, "adapters": {name: entry}}), tmp_path / "out", quiet)
    found = weights(tmp_path / "out" / name)
    assert all(bool(values.any()) for values in found.values())
    (atom,) = open_dictionary([tmp_path / "out"], open_base(recipe.base)).atoms
    assert atom.shapes
