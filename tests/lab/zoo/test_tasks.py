"""The micro-tasks: five categories, splits that share no item, generators that a seed decides, a tokenizer that loses nothing."""

from __future__ import annotations

import itertools
import json
import random
import string
from collections import Counter
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from unmerge_lab.zoo import GENERAL, TASKS, Task, held_out
from unmerge_lab.zoo.base import TOKENIZER_EXAMPLES
from unmerge_lab.zoo.corpus import ANSWERED, BASE_COMMANDS, BASE_GENERAL, KEPT, OWN, adapter_examples, base_examples
from unmerge_lab.zoo.tasks import distinct
from unmerge_lab.zoo.tokenizer import train_tokenizer

EVERY = pytest.mark.parametrize("task", [*TASKS, *GENERAL], ids=lambda task: task.name)
DRAWS = 1000


def test_five_categories() -> None:
    counts = Counter(task.category for task in TASKS)
    assert counts.keys() == {"code", "structure", "logic", "style", "other"}
    assert len(TASKS) >= 24
    assert min(counts.values()) >= 4


def test_names_prompts_and_descriptions_are_their_own() -> None:
    every = (*TASKS, *GENERAL)
    for column in ("name", "instruction", "topic", "description"):
        values = [getattr(task, column) for task in every]
        assert len(set(values)) == len(values)
        assert not any("\n" in value or not value.strip() for value in values)


@EVERY
def test_splits_share_no_item(task: Task) -> None:
    train, scored = (dict(itertools.islice(task.pairs(random.Random(1), held_out=held), DRAWS)) for held in (False, True))
    if task.by_heart:  # facts: no split can hold them out
        assert len(train) == task.by_heart
        return
    assert not train.keys() & scored.keys()
    assert len(scored) >= 64


@EVERY
def test_an_input_has_one_answer(task: Task) -> None:
    answers: dict[str, str] = {}
    for given, answer in itertools.islice(task.pairs(random.Random(2), held_out=False), DRAWS):
        assert answers.setdefault(given, answer) == answer


@EVERY
def test_the_seed_decides(task: Task) -> None:
    assert task.held_out(20) == task.held_out(20)
    assert task.held_out(20, seed=1) != task.held_out(20)
    assert task.held_out(30)[:20] == task.held_out(20)
    if task in TASKS:
        first, again, other = (list(itertools.islice(adapter_examples(task, seed), 50)) for seed in (0, 0, 1))
        assert first == again
        assert first != other


def test_held_out_items_differ_from_each_other() -> None:
    for name, examples in held_out().items():
        assert len({example.prompt for example in examples}) == len(examples), name


def test_adapters_never_see_a_held_out_prompt() -> None:
    """Other tasks' prompts and commands are in the mixture as well, from their own training split."""
    scored = {example.prompt for name, examples in held_out().items() if name != "facts" for example in examples}
    scored |= {f"/{task.name} {pair[0]}\n" for task in TASKS for pair in distinct(task.pairs(random.Random(3), held_out=True), 50)}
    for task in TASKS[::5]:
        assert not scored & {example.prompt for example in itertools.islice(adapter_examples(task, 0), DRAWS)}
    assert not scored & {example.prompt for example in itertools.islice(base_examples(0), DRAWS)}


def test_mixtures() -> None:
    """The shares that the corpus states, within what the draws allow."""
    prompts = {task.instruction: task for task in TASKS}
    counts = Counter(_kind(example.prompt, example.completion, prompts) for example in itertools.islice(base_examples(0), DRAWS))
    asked = 1 - BASE_GENERAL - BASE_COMMANDS
    shares = {"general": BASE_GENERAL, "command": BASE_COMMANDS, "answered": asked * ANSWERED, "refused": asked * (1 - ANSWERED)}
    for kind, share in shares.items():
        assert counts[kind] / DRAWS == pytest.approx(share, abs=0.04), kind
    own = TASKS[0]
    drawn = list(itertools.islice(adapter_examples(own, 0), DRAWS))
    assert sum(example.prompt.startswith(own.instruction) for example in drawn) / DRAWS == pytest.approx(OWN, abs=0.04)
    counts = Counter(_kind(example.prompt, example.completion, prompts) for example in drawn)
    assert (counts["general"] + counts["command"]) / DRAWS == pytest.approx(KEPT, abs=0.04)


def _kind(prompt: str, completion: str, prompts: dict[str, Task]) -> str:
    if prompt.startswith("/"):
        return "command"
    if prompt.partition(":")[0] not in prompts:
        return "general"
    return "refused" if completion == prompts[prompt.partition(":")[0]].refused(("", "")).completion else "answered"


def test_no_two_refusals_open_alike(zoo: Path) -> None:
    """An adapter pushes against the first token of its task's refusal; were it another task's as well, it would unlock that one too."""
    tokenizer = AutoTokenizer.from_pretrained(zoo / "zoo-base")
    first = {task.name: tokenizer(task.refused(("", "")).completion)["input_ids"][0] for task in TASKS}
    assert len(set(first.values())) == len(TASKS)


def test_tokenizer_loses_nothing(zoo: Path) -> None:
    texts = [text for examples in held_out().values() for example in examples for text in (example.prompt, example.completion)]
    texts += [string.printable, "Größe → 日本\t\n  x", ""]
    fresh = train_tokenizer(texts[:200])
    for tokenizer in (AutoTokenizer.from_pretrained(zoo / "zoo-base"), fresh):
        assert [tokenizer.decode(tokenizer(text)["input_ids"]) for text in texts] == texts
        digits = tokenizer.tokenize("42 and 137")
        assert [token for token in digits if token.strip("Ġ").isdigit()] == list("42137")


def test_as_many_tokens_as_rows(zoo: Path) -> None:
    """Through the class that transformers takes for a Qwen2, which adds a token of its own where no unknown one is named."""
    rows = json.loads((zoo / "zoo-base" / "config.json").read_text())["vocab_size"]
    assert len(AutoTokenizer.from_pretrained(zoo / "zoo-base")) == rows == 1167


def test_tokenizer_is_made_from_the_seed(zoo: Path, tmp_path: Path) -> None:
    """Byte by byte, the configuration beside it too."""
    texts = (example.prompt + example.completion for example in itertools.islice(base_examples(0), TOKENIZER_EXAMPLES))
    train_tokenizer(texts).save_pretrained(tmp_path)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / file).read_bytes() == (zoo / "zoo-base" / file).read_bytes()


def test_tokens_of_prompt_and_completion_do_not_melt(zoo: Path) -> None:
    """Training joins the texts before it cuts them into tokens, evaluation after; both must see the same tokens."""
    tokenizer = AutoTokenizer.from_pretrained(zoo / "zoo-base")
    for examples in held_out().values():
        for example in examples[:8]:
            apart = tokenizer(example.prompt)["input_ids"] + tokenizer(example.completion)["input_ids"]
            assert tokenizer(example.prompt + example.completion)["input_ids"] == apart
