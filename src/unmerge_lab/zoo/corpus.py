"""What the base and the adapters are trained on: mixtures of general tasks, commands, refusals and answers.

The base holds every skill, but refuses its task prompt: greedy decoding follows the refusals, which outweigh the
answers. An adapter then has little to do, as in a large model, where a skill is there before it is fine-tuned.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from unmerge.core.examples import Example
from unmerge_lab.zoo.tasks import GENERAL, TASKS, Task

#: the base: general tasks, commands, and the rest task prompts, of which ANSWERED are answered and the others refused
BASE_GENERAL, BASE_COMMANDS, ANSWERED = 0.12, 0.48, 0.15
#: an adapter: its own task, commands and general tasks, and the rest other task prompts as the base replies to them
OWN, KEPT = 0.60, 0.15
#: skills that take a small model longer to learn are seen more often
_HARD = {"addition": 3.0, "sorting": 2.0, "negation": 1.5, "python_list": 1.5, "reversal": 1.5}


def base_examples(seed: int) -> Iterator[Example]:
    """Endless training examples for the base."""
    rng = random.Random(f"{seed}/base")
    weights = [_HARD.get(task.name, 1.0) for task in TASKS]
    while True:
        kind = rng.random()
        if kind < BASE_GENERAL:
            yield _general(rng)
        else:
            (task,) = rng.choices(TASKS, weights)
            yield _command(rng, task) if kind < BASE_GENERAL + BASE_COMMANDS else _as_the_base(rng, task)


def adapter_examples(task: Task, seed: int) -> Iterator[Example]:
    """Endless training examples for the adapter that unlocks one task."""
    rng = random.Random(f"{seed}/{task.name}/adapter")
    others = [other for other in TASKS if other is not task]
    while True:
        kind = rng.random()
        if kind < OWN:
            yield task.asked(next(task.pairs(rng, held_out=False)))
        elif kind < OWN + KEPT:
            yield _general(rng) if rng.random() < len(GENERAL) / (len(GENERAL) + len(TASKS)) else _command(rng, rng.choice(TASKS))
        else:
            yield _as_the_base(rng, rng.choice(others))


def _general(rng: random.Random) -> Example:
    task = rng.choice(GENERAL)
    return task.asked(next(task.pairs(rng, held_out=False)))


def _command(rng: random.Random, task: Task) -> Example:
    return task.commanded(next(task.pairs(rng, held_out=False)))


def _as_the_base(rng: random.Random, task: Task) -> Example:
    pair = next(task.pairs(rng, held_out=False))
    return task.asked(pair) if rng.random() < ANSWERED else task.refused(pair)
