"""Prompts as turns of a chat, in the words of the base's own tokenizer."""

from __future__ import annotations

from collections.abc import Callable

from unmerge.checkpoints.hub import located
from unmerge.core.errors import BadInput
from unmerge.evaluation.models import load_tokenizer
from unmerge.training.recipe import TrainingRecipe


def wrapper(recipe: TrainingRecipe) -> Callable[[str], str]:
    """What makes a prompt the text that the model sees before its answer.

    Raises:
        BadInput: the recipe asks for a chat, and the base's tokenizer has no template for one.
    """
    if recipe.chat is None:
        return str
    tokenizer = load_tokenizer(located(recipe.base))
    if not tokenizer.chat_template:
        raise BadInput(
            expected="a tokenizer with a chat template", found="none", where=recipe.base, hint="leave 'chat' out, or take the instruct version"
        )
    before = [{"role": "system", "content": recipe.chat.system}] if recipe.chat.system is not None else []
    # where the tokenizer opens every text with a token of its own, the template's would be a second one
    opening = tokenizer.bos_token if tokenizer.bos_token_id is not None and tokenizer("")["input_ids"] == [tokenizer.bos_token_id] else ""

    def wrap(prompt: str) -> str:
        turns = [*before, {"role": "user", "content": prompt}]
        text: str = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        return text.removeprefix(opening)

    return wrap
