"""Generated answers: the same as one at a time, as exact match has them, and through verify's folder of tasks."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from unmerge.core.errors import BadInput
from unmerge.core.examples import Example, read_examples, write_examples
from unmerge.decomposition import open_dictionary
from unmerge.evaluation.checks import Exact, Markers
from unmerge.evaluation.exact_match import exact_match
from unmerge.evaluation.generated import Generated, generate
from unmerge.evaluation.models import load_model
from unmerge.verification.tasks import read_tasks
from unmerge_lab.zoo import held_out

COUNT, TOKENS = 20, 24


@pytest.fixture(scope="module")
def items() -> list[Example]:
    """Some that the base answers and some that it refuses, of different lengths."""
    return [example for task in ("facts", "copy", "pirate") for example in held_out()[task][: COUNT // 2]]


def test_as_exact_match(zoo: Path, items: list[Example], tmp_path: Path) -> None:
    model, tokenizer = load_model(zoo / "zoo-base")
    suite = Generated({"mixed": (items, Exact(tokens=TOKENS))}, tmp_path / "none")
    scores = suite.score(model, tokenizer, ["mixed"])["mixed"]
    assert scores == [float(right) for right in exact_match(model, tokenizer, items)]
    assert 0 < sum(scores) < len(scores)
    alone = [generate(model, tokenizer, [item.prompt], TOKENS)[0] for item in items[:4]]
    assert generate(model, tokenizer, [item.prompt for item in items], TOKENS)[:4] == alone
    assert not (tmp_path / "none").exists()


def test_identity(items: list[Example], tmp_path: Path) -> None:
    def identity(examples: list[Example], check: Exact | Markers) -> str:
        return Generated({"task": (examples, check)}, tmp_path).identity("task")

    first = identity(items, Exact())
    assert first == identity(list(items), Exact())
    others = [identity(items[1:], Exact()), identity(items, Exact(form="words")), identity(items, Markers(wanted=["a"]))]
    others.append(identity([Example(items[0].prompt, items[0].completion, {"tests": "x"}), *items[1:]], Exact()))
    assert len({first, *others}) == 5


def test_empty_prompt(zoo: Path) -> None:
    model, tokenizer = load_model(zoo / "zoo-base")
    with pytest.raises(BadInput, match="expected a prompt, found an empty one"):
        generate(model, tokenizer, [""], 4)


def test_in_a_folder_of_tasks(zoo: Path, items: list[Example], tmp_path: Path) -> None:
    """A check beside the items says how they are scored; items without one are scored by exact match."""
    first, second = sorted(path.name for path in (zoo / "known").iterdir())[:2]
    dictionary = open_dictionary([zoo / "known" / first, zoo / "known" / second], None)
    for name in ("styled", "plain"):
        write_examples(tmp_path / f"{name}.held_out.jsonl", items)
    (tmp_path / "styled.check.yml").write_text(yaml.safe_dump({"kind": "markers", "wanted": ["trained for that"], "tokens": TOKENS}))
    (tmp_path / "tasks.yml").write_text(yaml.safe_dump({first: ["styled"], second: ["plain"]}))
    suite = read_tasks(tmp_path, dictionary).suite(limit=COUNT)
    model, tokenizer = load_model(zoo / "zoo-base")
    scores = suite.score(model, tokenizer, ["styled", "plain"])
    right = exact_match(model, tokenizer, items[:COUNT])
    assert scores["plain"] == [float(one) for one in right]
    assert sum(scores["styled"]) == pytest.approx(sum(not one for one in right), abs=2)  # the base refuses what it does not answer
    assert (suite.scorer("styled"), suite.scorer("plain")) == ("at least 1 of 1 marks of the style", "exact match")
    assert read_examples(tmp_path / "plain.held_out.jsonl") == items
    shutil.copy(tmp_path / "tasks.yml", tmp_path / "styled.check.yml")
    with pytest.raises(BadInput, match=r"styled\.check\.yml: expected a valid check, found Unable to extract tag using discriminator 'kind'"):
        read_tasks(tmp_path, dictionary).suite()
