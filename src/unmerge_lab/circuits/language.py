"""A block of the zoo's base under L3D: prompts as samples, the distribution of the next token as the output, KL as divergence.

The base refuses every task prompt and obeys every command. A task prompt and the command of the same skill and input are a
*contrastive pair*: what moves the answer to the one towards the answer to the other is the skill's circuit.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from unmerge.circuits.divergences import kl
from unmerge.circuits.landscape import Landscape
from unmerge.circuits.subnetworks import Subnetworks
from unmerge.evaluation import exact_match
from unmerge.evaluation.models import load_model
from unmerge.vectors import LowRank
from unmerge_lab import embedded_zoo
from unmerge_lab.zoo import Task
from unmerge_lab.zoo.embedded import BASE, BASE_NAME

_PREFIX = "model."


class NextToken(nn.Module):
    """Logits of the token after a prompt. A sample is the prompt's tokens, padded on the right, and the place of its last one."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, samples: Int[Tensor, "batch width"]) -> Float[Tensor, "batch vocabulary"]:
        """(batch, width + 1) to (batch, vocabulary)."""
        tokens, last = samples[:, :-1], samples[:, -1:]
        hidden = self.model.model(input_ids=tokens, use_cache=False).last_hidden_state
        # not an index: which place it is must not decide what is computed, or vmap cannot follow
        here = (torch.arange(tokens.shape[1]) == last).to(hidden.dtype)
        logits: Tensor = self.model.lm_head((hidden * here[..., None]).sum(1))
        return logits


@dataclass(frozen=True)
class Prompts:
    """Task prompts with the commands that ask for the same.

    Attributes:
        tasks: the skills.
        of: the task of every prompt, its place in ``tasks``.
        asked: samples of the task prompts.
        commanded: samples of the commands.
    """

    tasks: list[Task]
    of: Int[Tensor, " prompts"]
    asked: Int[Tensor, "prompts width"]
    commanded: Int[Tensor, "prompts width"]

    @staticmethod
    def of_tasks(tasks: Sequence[Task], tokenizer: Any, count: int, seed: int = 0) -> Prompts:
        """``count`` prompts of every task, none of them held out."""
        rng = random.Random(f"{seed}/circuits")
        pairs = [(place, next(task.pairs(rng, held_out=False))) for place, task in enumerate(tasks) for _ in range(count)]
        asked = [tokenizer(tasks[place].asked(pair).prompt)["input_ids"] for place, pair in pairs]
        commanded = [tokenizer(tasks[place].commanded(pair).prompt)["input_ids"] for place, pair in pairs]
        width = max(map(len, asked + commanded))
        places = torch.tensor([place for place, _ in pairs])
        return Prompts(list(tasks), places, *(_padded(rows, width, tokenizer.eos_token_id) for rows in (asked, commanded)))


def _padded(rows: list[list[int]], width: int, end: int) -> Int[Tensor, "prompts width"]:
    result = torch.full((len(rows), width + 1), end)
    for place, row in enumerate(rows):
        result[place, : len(row)] = torch.tensor(row)
        result[place, -1] = len(row) - 1
    return result


@dataclass(frozen=True)
class Language:
    """The zoo's base, and one block of it as a landscape.

    Attributes:
        model: the causal language model.
        tokenizer: its tokenizer.
        landscape: of the block's linear modules, under KL.
    """

    model: Any
    tokenizer: Any
    landscape: Landscape

    @staticmethod
    def open(block: int) -> Language:
        """The zoo's base and one of its blocks."""
        model, tokenizer = load_model(embedded_zoo() / BASE, BASE_NAME)
        model.eval().requires_grad_(False)
        # the fused kernel is not known to torch.func
        model.set_attn_implementation("eager")
        module = NextToken(model)
        names = [name for name, _ in module.named_parameters() if f".layers.{block}." in name and name.endswith("proj.weight")]
        return Language(model, tokenizer, Landscape.of(module, names, kl))

    def tensor(self, name: str) -> str:
        """The name of a parameter in the model's own files."""
        return name.removeprefix(_PREFIX)

    def scores(self, moves: dict[str, Tensor], held_out: dict[str, list[Any]]) -> dict[str, float]:
        """Exact match on every task with some parameters moved by so much."""
        parameters = dict(self.model.named_parameters())
        before = {name: parameters[self.tensor(name)].detach().clone() for name in moves}
        try:
            with torch.no_grad():
                for name, move in moves.items():
                    parameters[self.tensor(name)].add_(move)
            return {task: sum(exact_match(self.model, self.tokenizer, items)) / len(items) for task, items in held_out.items()}
        finally:
            with torch.no_grad():
                for name, values in before.items():
                    parameters[self.tensor(name)].copy_(values)


def low_rank(found: Subnetworks, subnetwork: int, step: float) -> dict[str, LowRank]:
    """step x a subnetwork as factors of a LoRA, by parameter; for CP of matrices."""
    result = {}
    for name, tensor in found.decoder.tensors.items():
        left, right = (tensor.factors[f"mode{place}"][0, subnetwork].detach() for place in (0, 1))
        result[name] = LowRank(step * left.T.contiguous(), right.contiguous())
    return result
