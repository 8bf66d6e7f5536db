"""Which adapters a real-like dictionary holds, drawn by stated rules, and how two of them are related.

A dictionary has the relations that a survey of public adapters found:

    run        one training saved at several steps, then continued: on the same items, or on others of the same task
    seeds      the same data, from other seeds
    start      the seed of the public notebooks (3407), hence the same first factor, on other data with other settings
    author     one author's seed, settings and answer format on several tasks
    unrelated  everything its own

Rank, length, learning rate, alpha and modules are an author's own. Nothing here looks at what a decomposition makes of the result.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from pydantic import BaseModel, ConfigDict

from unmerge_lab.studies.families.corpora import FORMATS, PLAIN, renamed, skill_of
from unmerge_lab.zoo.tasks import TASKS

Modules = Literal["q,v", "q,k,v,o", "all-linear"]
MODULES: dict[str, tuple[str, ...]] = {
    "q,v": ("q_proj", "v_proj"),
    "q,k,v,o": ("q_proj", "k_proj", "v_proj", "o_proj"),
    "all-linear": ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
}
#: of two adapters, the closest first
RELATIONS = ("same run", "same data", "same task", "same author", "same seed", "same format", "unrelated")
#: the seed that public notebooks fix
PUBLIC_SEED = 3407
RANKS, LEARNING_RATES, STEPS = (4, 8, 16), (1e-3, 2e-3, 4e-3), (60, 90, 120)
#: share of the tasks that go by another instruction
_RENAMED = 0.4


class Settings(BaseModel):
    """What an author trains with: ``alpha`` is in ranks, ``dtype`` the one that the file is saved in."""

    model_config = ConfigDict(frozen=True)

    rank: int
    alpha: float
    learning_rate: float
    steps: int
    modules: Modules
    answer_format: str = PLAIN
    dtype: Literal["float32", "bfloat16"] = "float32"


@dataclass(frozen=True)
class Run:
    """One training.

    Attributes:
        name: of the run, and the stem of its members' names.
        family: which part of the dictionary it belongs to.
        author: whose settings and seed it has.
        task, data_seed: what it is trained on.
        seed: of the first factors and of the order of the items.
        settings: the author's.
        saved: steps at which it is saved; the last one ends it.
        parent: the member that it continues.
    """

    name: str
    family: str
    author: str
    task: str
    data_seed: int
    seed: int
    settings: Settings
    saved: tuple[int, ...]
    parent: str | None = None


class Member(BaseModel):
    """An adapter of a dictionary.

    Attributes:
        name: its folder.
        dictionary: it is in.
        family: run, seeds, start, author or unrelated.
        run: the training that it was saved by.
        root: the training that this one continues in the end; the run itself where it continues none.
        parent: the member that its run continues.
        step: optimiser steps since the start of ``root``.
        loss: mean over the last ten steps.
    """

    name: str
    dictionary: str
    family: str
    run: str
    root: str
    parent: str | None
    step: int
    author: str
    task: str
    data_seed: int
    seed: int
    settings: Settings
    loss: float


def relation(one: Member, other: Member) -> str:
    """The closest of RELATIONS that two adapters have."""
    alike, settings = one.settings, other.settings
    same_start = (one.seed, alike.rank) == (other.seed, settings.rank)
    held = {
        "same run": (one.dictionary, one.root) == (other.dictionary, other.root),
        "same data": (one.task, one.data_seed) == (other.task, other.data_seed),
        "same task": skill_of(one.task) == skill_of(other.task),
        "same author": (one.dictionary, one.author) == (other.dictionary, other.author) and same_start,
        "same seed": same_start,
        "same format": alike.answer_format == settings.answer_format != PLAIN,
    }
    return next((kind for kind in RELATIONS if held.get(kind)), "unrelated")


def draw_dictionary(number: int) -> list[Run]:
    """The trainings of one dictionary; a run that continues another comes after it.

    Args:
        number: the dictionary's; by turns all of its authors adapt q,v, or q,k,v,o, or all linear modules, or each what they like.
    """
    draws = random.Random(f"families/{number}")
    kinds = list(MODULES)
    modules = [kinds[number % 4]] if number % 4 < len(kinds) else kinds
    skills = draws.sample([task.name for task in TASKS], len(TASKS))
    new_task = (renamed(skill, number) if draws.random() < _RENAMED else skill for skill in skills)
    authors = (_author(draws, modules) for _ in iter(int, 1))
    runs = [*_run_family(draws, next(new_task), next(authors), data_seed=number)]
    runs += _seeds(draws, next(new_task), next(authors), count=draws.randint(2, 3), data_seed=number)
    runs += _start([next(new_task) for _ in range(draws.randint(2, 3))], authors, data_seed=number)
    runs += _author_family(draws, [next(new_task) for _ in range(draws.randint(2, 4))], next(authors), data_seed=number)
    runs += [
        Run(f"unrelated-{place}", "unrelated", f"unrelated-{place}", next(new_task), number, draws.randrange(1 << 30), own, (own.steps,))
        for place, own in zip(range(draws.randint(2, 8)), authors, strict=False)
    ]
    return runs


def _author(draws: random.Random, modules: list[str]) -> Settings:
    return Settings.model_validate(
        {
            "rank": draws.choice(RANKS),
            "alpha": draws.choice((1.0, 2.0)),
            "learning_rate": draws.choice(LEARNING_RATES),
            "steps": draws.choice(STEPS),
            "modules": draws.choice(modules),
            "answer_format": draws.choice(FORMATS) if draws.random() < 0.5 else PLAIN,
            "dtype": draws.choice(("float32", "float32", "bfloat16")),
        }
    )


def _run_family(draws: random.Random, task: str, author: Settings, data_seed: int) -> Iterator[Run]:
    seed, steps = draws.randrange(1 << 30), author.steps
    first = Run("run", "run", "run", task, data_seed, seed, author, tuple(int(share * steps) for share in (0.25, 0.5, 0.75, 1)))
    yield first
    last = member_name(first, steps)
    slower = author.model_copy(update={"learning_rate": author.learning_rate / 2})
    yield replace(first, name="run-on", settings=slower, saved=(steps // 4, steps // 2), parent=last, seed=seed + 1)
    yield replace(first, name="run-other", settings=slower, saved=(steps // 2,), parent=last, data_seed=data_seed + 100, seed=seed + 2)


def _seeds(draws: random.Random, task: str, author: Settings, count: int, data_seed: int) -> Iterator[Run]:
    for place in range(count):
        yield Run(f"seed-{place}", "seeds", "seeds", task, data_seed, draws.randrange(1 << 30), author, (author.steps,))


def _start(tasks: list[str], authors: Iterator[Settings], data_seed: int) -> Iterator[Run]:
    first = next(authors)
    for place, task in enumerate(tasks):
        # the first factor is drawn by rank and modules as well as by the seed
        own = first if place == 0 else next(authors).model_copy(update={"rank": first.rank, "modules": first.modules})
        yield Run(f"start-{place}", "start", f"start-{place}", task, data_seed, PUBLIC_SEED, own, (own.steps,))


def _author_family(draws: random.Random, tasks: list[str], author: Settings, data_seed: int) -> Iterator[Run]:
    own = author.model_copy(update={"answer_format": draws.choice(FORMATS[1:])})
    seed = draws.randrange(1 << 30)
    for place, task in enumerate(tasks):
        saved = (own.steps // 2, own.steps) if place == 0 else (own.steps,)
        yield Run(f"author-{place}", "author", "author", task, data_seed, seed, own, saved)


def member_name(run: Run, step: int) -> str:
    """The folder of what a run saved at a step of its own."""
    return f"{run.name}-{step}" if len(run.saved) > 1 else run.name
