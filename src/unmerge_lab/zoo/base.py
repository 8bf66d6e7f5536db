"""The zoo's base model: a small Qwen2, trained from nothing to hold every skill and to refuse its task prompt."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from unmerge.core.errors import need
from unmerge.evaluation.batch import NOT_AN_ANSWER, pad
from unmerge.training.finetune import Watch
from unmerge_lab.zoo.corpus import base_examples
from unmerge_lab.zoo.tokenizer import train_tokenizer

STEPS, BATCH, LEARNING_RATE, WARMUP, WEIGHT_DECAY = 4000, 64, 3e-3, 0.1, 0.01
TOKENIZER_EXAMPLES = 20_000


def make_base(seed: int, steps: int = STEPS, watch: Watch | None = None) -> tuple[Any, Any]:
    """Train the base in float32 and round it to bfloat16, as large models are published.

    A plain loop, not the trainer of the adapters: the output head is applied to the answers' tokens alone, which halves
    the time.

    Args:
        seed: of the data and the initial weights.
        steps: optimiser steps of BATCH examples, AdamW with a one-cycle learning rate.
        watch: told (steps done, steps in all).

    Returns:
        (model in bfloat16, tokenizer).
    """
    transformers = need("transformers", "train")
    tokenizer = train_tokenizer(example.prompt + example.completion for example in itertools.islice(base_examples(seed), TOKENIZER_EXAMPLES))
    transformers.set_seed(seed)
    model = transformers.Qwen2ForCausalLM(
        transformers.Qwen2Config(
            vocab_size=len(tokenizer),
            hidden_size=128,
            intermediate_size=256,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=256,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.98), weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps, pct_start=WARMUP)
    examples = base_examples(seed)
    for step in range(1, steps + 1):
        tokens, answers = pad(tokenizer, list(itertools.islice(examples, BATCH)))
        hidden = model.model(input_ids=tokens).last_hidden_state[:, :-1]
        counted = answers[:, 1:] != NOT_AN_ANSWER
        loss = cross_entropy(model.lm_head(hidden[counted]), answers[:, 1:][counted])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if watch:
            watch(step, steps)
    return model.to(torch.bfloat16).eval(), tokenizer
