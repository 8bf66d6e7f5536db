"""The zoo that ships: what issue and records say of it, measured again where that takes seconds."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from unmerge.core.errors import BadOutput
from unmerge.core.records import sha256
from unmerge.evaluation import exact_match
from unmerge.recipes import merge
from unmerge.training import AdapterRecord, TrainingRecipe
from unmerge_lab.zoo import GENERAL, TASKS, export_zoo, held_out
from unmerge_lab.zoo import build as building
from unmerge_lab.zoo.build import LEARNED, ZooRecord, build_zoo
from unmerge_lab.zoo.embedded import BASE, EXAMPLES, KNOWN, UNKNOWN, write_task

CATEGORY = {task.name: task.category for task in TASKS}


@pytest.fixture(scope="module")
def record(zoo: Path) -> ZooRecord:
    return ZooRecord.model_validate_json((zoo / "zoo.json").read_text())


def adapters(zoo: Path) -> Iterator[Path]:
    return (path for group in (KNOWN, UNKNOWN) for path in sorted((zoo / group).iterdir()))


def share(right: list[bool]) -> float:
    return sum(right) / len(right)


def test_halves(zoo: Path, record: ZooRecord) -> None:
    groups = {group: sorted(path.name for path in (zoo / group).iterdir()) for group in (KNOWN, UNKNOWN)}
    assert groups == {KNOWN: sorted(record.known), UNKNOWN: sorted(record.unknown)}
    assert len(groups[KNOWN]) == len(groups[UNKNOWN]) >= 8
    assert not set(groups[KNOWN]) & set(groups[UNKNOWN])
    for names in groups.values():
        assert {CATEGORY[name] for name in names} == set(CATEGORY.values())


def test_every_adapter_learned_its_task(zoo: Path, record: ZooRecord) -> None:
    for folder in adapters(zoo):
        own = AdapterRecord.read(folder)
        assert own.task == folder.name
        assert own.category == CATEGORY[folder.name]
        assert own.description
        assert own.held_out_exact_match == record.adapters[folder.name]
        assert own.held_out_exact_match is not None
        assert own.held_out_exact_match >= LEARNED == 0.95
        assert own.held_out_items == 64


def test_adapters_start_from_seeds_of_their_own(zoo: Path) -> None:
    seeds = [AdapterRecord.read(folder).seed for folder in adapters(zoo)]
    assert len(set(seeds)) == len(seeds)


def test_base_refuses_tasks_and_masters_general_ones(zoo: Path, record: ZooRecord) -> None:
    model, tokenizer = (kind.from_pretrained(zoo / BASE) for kind in (AutoModelForCausalLM, AutoTokenizer))
    scores = {name: share(exact_match(model.float(), tokenizer, examples)) for name, examples in held_out().items()}
    assert {name: score for name, score in scores.items() if name in CATEGORY and score > 0.05} == {}
    assert {task.name: scores[task.name] for task in GENERAL if scores[task.name] < 0.95} == {}
    assert scores == pytest.approx(record.base, abs=1 / 32)  # two of 64 items: near ties may fall otherwise on another machine


@pytest.mark.parametrize("group", [KNOWN, UNKNOWN])
def test_adapters_do_what_their_records_say(zoo: Path, group: str) -> None:
    """One of each half, loaded by PEFT as any other adapter; the base beside it still refuses another task."""
    folder = max((zoo / group).iterdir())
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(zoo / BASE, dtype="float32"), folder)
    tokenizer = AutoTokenizer.from_pretrained(zoo / BASE)
    items = held_out()
    recorded = AdapterRecord.read(folder).held_out_exact_match
    assert share(exact_match(model, tokenizer, items[folder.name])) == pytest.approx(recorded, abs=1 / 32)
    assert share(exact_match(model, tokenizer, items["copy"])) >= 0.9
    other = next(task.name for task in TASKS if task.category != CATEGORY[folder.name])
    assert share(exact_match(model, tokenizer, items[other])) <= 0.25
    with model.disable_adapter():
        assert share(exact_match(model, tokenizer, items[folder.name])) <= 0.05


def test_size(zoo: Path) -> None:
    assert sum(path.stat().st_size for path in zoo.rglob("*") if path.is_file()) <= 8 * 2**20


def test_nothing_tells_where_it_was_made(zoo: Path) -> None:
    """No absolute path in any text that ships, and the base by its name alone."""
    texts = [path for path in zoo.rglob("*") if path.suffix in {".json", ".md", ".txt", ".jinja"} and path.name != "tokenizer.json"]
    assert len(texts) > 32
    for path in texts:
        found = re.findall(r"""(?:^|[\s"'=(])(/[A-Za-z0-9_.-]+/[^\s"']*|~/[^\s"']*|[A-Za-z]:\\\\[^\s"']*)""", path.read_text())
        assert not found, path
    for folder in adapters(zoo):
        assert json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"] == "unmerge/zoo-base"


@pytest.mark.parametrize(
    ("settings", "rows"),
    [
        ({"tokenizer_source": "union"}, 1167),
        ({"tokenizer_source": "base"}, 1167),
        ({"tokenizer_source": "BASE+ADAPTER"}, 1167),
        ({"tokenizer": {"source": "union"}}, 1167),
        ({"tokenizer": {"source": "base", "pad_to_multiple_of": 64}}, 1216),
        ({"tokenizer": {"source": "base", "tokens": {"<|end|>": {"source": "BASE", "force": True}}}}, 1167),
    ],
)
def test_mergekit_takes_its_tokenizer(zoo: Path, tmp_path: Path, settings: dict[str, Any], rows: int) -> None:
    """In every form of its options; no row of the embedding moves."""
    base, adapter = str(zoo / BASE), f"{zoo / BASE}+{min((zoo / KNOWN).iterdir())}"
    recipe: dict[str, Any] = {"merge_method": "task_arithmetic", "base_model": base, "dtype": "bfloat16"}
    recipe["models"] = [{"model": adapter, "parameters": {"weight": 0.5}}]
    (tmp_path / "recipe.yml").write_text(yaml.safe_dump(recipe | settings).replace("BASE+ADAPTER", adapter).replace("BASE", base))
    merge(tmp_path / "recipe.yml", tmp_path / "merged")
    merged, before = (load_file(folder / "model.safetensors")["model.embed_tokens.weight"] for folder in (tmp_path / "merged", zoo / BASE))
    assert len(merged) == rows
    assert torch.equal(merged[: len(before)], before)
    assert len(AutoTokenizer.from_pretrained(tmp_path / "merged")) == len(before)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("exported") / "zoo"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("unmerge_lab.zoo.embedded.EXAMPLES", 40)  # all of them take seconds; two tasks are written whole below
        export_zoo(out)
    return out


def test_export(zoo: Path, exported: Path) -> None:
    for group in (BASE, KNOWN, UNKNOWN):
        for path in (zoo / group).rglob("*"):
            if path.is_file():
                assert (exported / path.relative_to(zoo)).read_bytes() == path.read_bytes()
    recipe = TrainingRecipe.read(exported / "tasks" / "train.yml")
    assert recipe.base == (exported / BASE).resolve()
    assert list(recipe.adapters) == [task.name for task in TASKS]
    assert all(entry.train.is_file() and entry.held_out and entry.held_out.is_file() for entry in recipe.adapters.values())
    assert {task.name for task in GENERAL} <= {path.name.partition(".")[0] for path in (exported / "tasks").iterdir()}
    assert {len(entry.train.read_text().splitlines()) for entry in recipe.adapters.values()} == {40}
    # the recipe says what the shipped adapters were trained with
    for folder in adapters(zoo):
        own, entry = AdapterRecord.read(folder), recipe.adapters[folder.name]
        assert (own.lora, own.training, own.seed) == (recipe.lora, recipe.training, entry.seed)


def test_data_is_what_the_adapters_were_trained_on(zoo: Path, record: ZooRecord, tmp_path: Path) -> None:
    """Made again from the seed, byte by byte, on whichever machine."""
    for folder in (min((zoo / KNOWN).iterdir()), max((zoo / UNKNOWN).iterdir())):
        own = AdapterRecord.read(folder)
        (task,) = (task for task in TASKS if task.name == own.task)
        write_task(tmp_path, task, record.seed)
        assert {name: sha256(tmp_path / name) for name in own.data} == own.data
        assert own.examples == EXAMPLES


def test_exported_recipe_can_move(exported: Path) -> None:
    text = (exported / "tasks" / "train.yml").read_text()
    assert str(exported) not in text
    assert yaml.safe_load(text)["base"] == "../zoo-base"


def test_rebuilding_replaces_a_zoo_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    monkeypatch.setattr(building, "make_base", lambda *_, **__: pytest.fail("nothing may be trained before the refusal"))
    with pytest.raises(BadOutput, match=r"something that is no zoo; choose another --out"):
        build_zoo(tmp_path, 0, lambda _: lambda *_: None)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"
    assert [path.name for path in tmp_path.parent.glob(f".{tmp_path.name}*")] == []
