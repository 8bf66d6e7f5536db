"""Prompts as turns of a chat: once in the tokenizer's own template, and no second opening token."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from unmerge.core.errors import BadInput
from unmerge.evaluation.models import load_tokenizer
from unmerge.training import TrainingRecipe
from unmerge.training.chat import wrapper
from unmerge.training.recipe import AdapterEntry, Chat

TEMPLATE = (
    "{{ bos_token }}{% for turn in messages %}[{{ turn.role }}] {{ turn.content }}\n{% endfor %}{% if add_generation_prompt %}[assistant] {% endif %}"
)


def recipe(base: Path, chat: Chat | None) -> TrainingRecipe:
    return TrainingRecipe(base=base, chat=chat, adapters={"one": AdapterEntry(train=Path("x.jsonl"))})


@pytest.fixture
def base(zoo: Path, tmp_path: Path) -> Path:
    """The zoo's tokenizer with a template that begins with an opening token."""
    tokenizer = load_tokenizer(zoo / "zoo-base")
    tokenizer.chat_template, tokenizer.bos_token = TEMPLATE, "<|pad|>"
    tokenizer.save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def test_wrapped(base: Path) -> None:
    assert wrapper(recipe(base, None))("Hi") == "Hi"
    assert wrapper(recipe(base, Chat()))("Hi") == "<|pad|>[user] Hi\n[assistant] "
    assert wrapper(recipe(base, Chat(system="Be kind.")))("Hi") == "<|pad|>[system] Be kind.\n[user] Hi\n[assistant] "


def test_one_opening_token(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the tokenizer opens every text by itself, the template's own is left out."""
    tokenizer = load_tokenizer(base)
    plain = type(tokenizer).__call__

    def opening(self: object, text: str, **settings: object) -> object:
        found = plain(self, text, **settings)
        return {"input_ids": [tokenizer.bos_token_id, *found["input_ids"]]}

    monkeypatch.setattr(type(tokenizer), "__call__", opening)
    assert wrapper(recipe(base, Chat()))("Hi") == "[user] Hi\n[assistant] "


def test_no_template(zoo: Path, tmp_path: Path) -> None:
    bare = shutil.copytree(zoo / "zoo-base", tmp_path / "bare")
    with pytest.raises(BadInput, match="bare: expected a tokenizer with a chat template, found none; leave 'chat' out, or take the instruct version"):
        wrapper(recipe(bare, Chat()))
