"""Exact match in one forward pass: the same answers as generating, whatever stands beside an item in its batch."""

from __future__ import annotations

import importlib
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from unmerge.core.examples import Example
from unmerge.evaluation import exact_match
from unmerge.evaluation.batch import NOT_AN_ANSWER, pad
from unmerge.evaluation.exact_match import _rows
from unmerge.evaluation.models import load_model
from unmerge_lab.zoo import GENERAL, TASKS


@pytest.fixture(scope="module")
def base(zoo: Path) -> tuple[Any, Any]:
    return load_model(zoo / "zoo-base")


def examples() -> list[Example]:
    """What the base answers (commands, general tasks), what it refuses, and refusals, all of different lengths."""
    found = []
    for task in (*TASKS[::6], *GENERAL):
        pairs = task.pairs(random.Random(0), held_out=True)
        pair = next(pairs)
        found += [task.asked(pair), task.commanded(pair), task.refused(next(pairs))]
    return found


def by_generating(model: Any, tokenizer: Any, examples: Sequence[Example]) -> list[bool]:
    """The slow way: greedy decoding, one prompt at a time, and the text compared."""
    right = []
    for example in examples:
        prompt = tokenizer(example.prompt, return_tensors="pt")
        tokens = model.generate(**prompt, max_new_tokens=60, do_sample=False, pad_token_id=tokenizer.eos_token_id)[0, prompt["input_ids"].shape[1] :]
        ended = tokens[-1] == tokenizer.eos_token_id
        right.append(bool(ended) and tokenizer.decode(tokens[:-1]) == example.completion)
    return right


def test_same_as_generating(base: tuple[Any, Any]) -> None:
    found = exact_match(*base, examples())
    assert found == by_generating(*base, examples())
    assert 0.2 < sum(found) / len(found) < 0.9  # both answers occur


def test_an_answer_must_be_whole_and_must_end(base: tuple[Any, Any]) -> None:
    (right,) = (example for example in examples() if example.prompt.startswith("/python_list"))
    cut, longer = right.completion[:-1], right.completion + "]"
    assert exact_match(*base, [right, Example(right.prompt, cut), Example(right.prompt, longer)]) == [True, False, False]


def test_neighbours_and_order_do_not_matter(base: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Alone there is no padding; in a batch of three there is, and another one when the order changes."""
    items = examples()
    alone = [exact_match(*base, [item])[0] for item in items]
    places = list(range(len(items)))
    random.Random(0).shuffle(places)
    for size in (3, 256):
        monkeypatch.setattr(importlib.import_module("unmerge.evaluation.exact_match"), "_BATCH", size)
        shuffled = exact_match(*base, [items[place] for place in places])
        assert [shuffled[places.index(place)] for place in range(len(items))] == alone


def test_nothing_to_score(base: tuple[Any, Any]) -> None:
    assert exact_match(*base, []) == []


def test_a_tokenizer_that_opens_texts_and_has_no_padding(zoo: Path) -> None:
    """As Llama's: a token in front of every text and none for padding. The completion gets none in front."""
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(zoo / "zoo-base" / "tokenizer.json"), eos_token="<|end|>")
    plain = {text: tokenizer(text)["input_ids"] for text in ("Repeat: apple\n", "apple<|end|>", "Sort upwards: 3 1 2 0\n", "0 1 2 3<|end|>")}
    opener = tokenizer.convert_tokens_to_ids("<|pad|>")
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<|pad|> $A", special_tokens=[("<|pad|>", opener)])
    assert tokenizer.pad_token_id is None
    tokens, answers = pad(tokenizer, [Example("Repeat: apple\n", "apple"), Example("Sort upwards: 3 1 2 0\n", "0 1 2 3")])
    for row, (prompt, completion) in enumerate([list(plain)[:2], list(plain)[2:]]):
        expected = [opener, *plain[prompt], *plain[completion]]
        assert tokens[row, : len(expected)].tolist() == expected
        assert [token for token in answers[row].tolist() if token != NOT_AN_ANSWER] == plain[completion]
    assert NOT_AN_ANSWER not in answers[:, -1].tolist()[1:]  # the longer row is full
    assert set(answers[0, len(plain["Repeat: apple\n"]) + 3 :].tolist()) == {NOT_AN_ANSWER}


class _Vocabulary:
    """A tokenizer of words with a vocabulary of some size."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __call__(self, text: str) -> dict[str, list[str]]:
        return {"input_ids": text.split()}


@pytest.mark.parametrize(("size", "rows"), [(1_000, 256), (150_000, 17), (1 << 28, 1)])
def test_fewer_at_a_time_where_the_vocabulary_is_large(size: int, rows: int) -> None:
    """No more than 2^28 logits: a hundred tokens of 150,000 each leave room for 17 examples."""
    longest = Example("word " * 60, "word " * 39)
    assert _rows(_Vocabulary(size), longest) == rows
