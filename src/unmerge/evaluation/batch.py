"""Examples as padded tensors, for teacher forcing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from unmerge.core.examples import Example

#: marks the positions of ``answers`` that are not part of a completion
NOT_AN_ANSWER = -1


def pad(tokenizer: Any, examples: Sequence[Example]) -> tuple[Int[Tensor, "batch width"], Int[Tensor, "batch width"]]:
    """Tokens, padded on the right with the end token (not every tokenizer has a padding token), and the answers among them.

    Returns:
        (tokens, answers), both (batch, width). ``answers`` repeats the completion's tokens, the end token after them
        included, and is NOT_AN_ANSWER elsewhere.
    """
    prompts = tokenizer([example.prompt for example in examples])["input_ids"]
    # a completion follows its prompt: no second token that opens a text
    completions = tokenizer([example.completion + tokenizer.eos_token for example in examples], add_special_tokens=False)["input_ids"]
    width = max(len(prompt) + len(completion) for prompt, completion in zip(prompts, completions, strict=True))
    tokens = torch.full((len(examples), width), tokenizer.eos_token_id)
    answers = torch.full((len(examples), width), NOT_AN_ANSWER)
    for row, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
        end = len(prompt) + len(completion)
        tokens[row, :end] = torch.tensor(prompt + completion)
        answers[row, len(prompt) : end] = torch.tensor(completion)
    return tokens, answers
