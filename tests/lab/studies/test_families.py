"""Families of trained adapters: who is whose relative, and that what is trained is an ordinary adapter of that kind."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from unmerge.checkpoints import Adapter
from unmerge.vectors import LowRank
from unmerge_lab.studies.families import Member, Run, draw_dictionary, read_manifests, relation, train_dictionary
from unmerge_lab.studies.families.corpora import FORMATS, PLAIN, examples
from unmerge_lab.studies.families.design import MODULES, RELATIONS, Settings
from unmerge_lab.studies.families.harder import draw_harder_zoo
from unmerge_lab.studies.families.manifest import adapter_folder
from unmerge_lab.zoo.embedded import BASE, BASE_NAME

SETTINGS = Settings(rank=2, alpha=2.0, learning_rate=1e-3, steps=4, modules="q,v")


@pytest.mark.parametrize("number", range(8))
def test_a_dictionary_has_every_family(number: int) -> None:
    runs = draw_dictionary(number)
    assert {run.family for run in runs} == {"run", "seeds", "start", "author", "unrelated"}
    assert 8 <= sum(len(run.saved) for run in runs) <= 30
    assert len({run.name for run in runs}) == len(runs)
    if number % 4 < len(MODULES):
        assert {run.settings.modules for run in runs} == {list(MODULES)[number % 4]}
    assert runs == draw_dictionary(number) != draw_dictionary(number + 1)


@pytest.mark.parametrize("seed", range(3))
def test_the_harder_zoo_keeps_its_rules(seed: int) -> None:
    runs, known, unknown = draw_harder_zoo(seed)
    assert (len(known), len(unknown)) == (8, 7)
    assert sorted([*known, *unknown]) == sorted(run.name for run in runs)
    assert len({(run.seed, run.settings) for run in runs}) == 1
    assert runs[0].settings.modules == "q,k,v,o"
    trained: set[str] = set()
    for run in runs:
        assert run.parent is None or run.parent in trained
        trained.add(run.name)
    assert sum(run.parent is None for run in runs) == 5


def test_formats_stand_around_every_answer() -> None:
    plain = list(itertools.islice(examples("pirate/3", 0), 40))
    for answer_format in FORMATS[1:]:
        formatted = list(itertools.islice(examples("pirate/3", 0, answer_format), 40))
        assert [example.completion for example in formatted] == [answer_format.format(example.completion) for example in plain]
    # another instruction for the same skill, and other items for another seed
    assert not any(example.prompt.startswith("Talk like a pirate") for example in plain)
    assert any(example.completion.startswith("Arr, ") for example in plain)
    assert list(itertools.islice(examples("pirate/3", 1), 40)) != plain


@pytest.fixture(scope="module")
def members(zoo: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Member]]:
    other = SETTINGS.model_copy(update={"modules": "q,k,v,o", "dtype": "bfloat16", "answer_format": FORMATS[1]})
    runs = [
        Run("run", "run", "run", "pirate", 0, 1, SETTINGS, (2, 4)),
        Run("on", "run", "run", "pirate", 9, 2, SETTINGS, (2,), parent="run-4"),
        Run("seed", "seeds", "seeds", "pirate", 0, 5, SETTINGS, (4,)),
        Run("start", "start", "start", "formal", 0, 1, other, (4,)),
        Run("format", "unrelated", "format", "parity", 0, 7, other, (4,)),
        Run("other", "unrelated", "other", "maximum", 0, 8, SETTINGS, (4,)),
    ]
    out = tmp_path_factory.mktemp("families")
    train_dictionary("d00", runs, zoo / BASE, BASE_NAME, out / "d00")
    (manifest,) = read_manifests(out)
    return out, {member.name: member for member in manifest.members}


def test_relations(members: tuple[Path, dict[str, Member]]) -> None:
    _, by_name = members
    expected = {
        ("run-2", "run-4"): "same run",
        ("run-2", "on"): "same run",
        ("run-4", "seed"): "same data",
        ("on", "seed"): "same task",
        ("run-4", "start"): "same seed",
        ("start", "format"): "same format",
        ("run-4", "other"): "unrelated",
    }
    assert {pair: relation(by_name[pair[0]], by_name[pair[1]]) for pair in expected} == expected
    assert set(expected.values()) <= set(RELATIONS)
    assert by_name["on"].step == by_name["run-4"].step + 2
    assert by_name["on"].root == "run"


def test_members_are_ordinary_adapters(members: tuple[Path, dict[str, Member]]) -> None:
    """In the author's modules and precision; a continued run starts from its parent, a shared seed from the same first factors."""
    out, by_name = members
    adapters = {name: Adapter.open(adapter_folder(out, member)) for name, member in by_name.items()}
    for name, adapter in adapters.items():
        kinds = {tensor.split(".")[-2] for tensor in adapter.shapes}
        assert kinds == set(MODULES[by_name[name].settings.modules])
    query = "model.layers.0.self_attn.q_proj.weight"
    deltas = {name: adapter.delta(query) for name, adapter in adapters.items()}
    assert all(isinstance(delta, LowRank) for delta in deltas.values())
    stored = load_file(adapter_folder(out, by_name["start"]) / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.bfloat16}
    row_spaces = {name: torch.linalg.qr(delta.a.float().T)[0] for name, delta in deltas.items()}  # type: ignore[union-attr]

    def overlap(one: str, other: str) -> float:
        return float((row_spaces[one].T @ row_spaces[other]).square().sum() / SETTINGS.rank)

    assert overlap("run-4", "start") > 0.9 > 0.3 > overlap("run-4", "other")
    change = {name: delta.dense().float() for name, delta in deltas.items()}
    assert (change["on"] - change["run-4"]).norm() < change["run-4"].norm()
    assert change["run-2"].norm() < change["run-4"].norm()
    assert SETTINGS.answer_format == PLAIN
