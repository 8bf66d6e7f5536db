"""Tasks under one name each, whatever scores them: exact match on examples, or lm-evaluation-harness."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from unmerge.core.examples import Example
from unmerge.core.records import fingerprint
from unmerge.evaluation.exact_match import ExactMatch

#: by task, the score of every item: 1 right, 0 wrong, or what the metric gives between
Scores = dict[str, list[float]]


class Suite(ABC):
    """Some tasks, and how to score a model on them."""

    @property
    @abstractmethod
    def tasks(self) -> tuple[str, ...]:
        """Their names."""

    @abstractmethod
    def score(self, model: Any, tokenizer: Any, tasks: Sequence[str]) -> Scores:
        """Every item of some of the tasks.

        Args:
            model: a ``transformers`` causal language model; it may change between two calls.
            tokenizer: its tokenizer, the same one in every call.
            tasks: names from ``tasks``.
        """

    @abstractmethod
    def scorer(self, task: str) -> str:
        """What scores a task, for the record."""

    @abstractmethod
    def identity(self, task: str) -> str:
        """What tells one version of a task from another."""


class Examples(Suite):
    """Tasks of prompts with completions, scored by exact match; all that are asked for share batches.

    Args:
        examples: by task.
    """

    def __init__(self, examples: Mapping[str, Sequence[Example]]) -> None:
        self._examples = examples
        self._ready: dict[tuple[str, ...], ExactMatch] = {}

    @property
    def tasks(self) -> tuple[str, ...]:
        return tuple(self._examples)

    def score(self, model: Any, tokenizer: Any, tasks: Sequence[str]) -> Scores:
        key = tuple(tasks)
        if key not in self._ready:
            self._ready[key] = ExactMatch(tokenizer, [example for task in key for example in self._examples[task]])
        right = iter(self._ready[key].score(model))
        return {task: [float(next(right)) for _ in self._examples[task]] for task in key}

    def scorer(self, task: str) -> str:
        return "exact match"

    def identity(self, task: str) -> str:
        return fingerprint([[example.prompt, example.completion] for example in self._examples[task]])


class Together(Suite):
    """Several suites as one; a task that two of them have belongs to the first."""

    def __init__(self, suites: Iterable[Suite]) -> None:
        self._of = {task: suite for suite in reversed(list(suites)) for task in suite.tasks}

    @property
    def tasks(self) -> tuple[str, ...]:
        return tuple(self._of)

    def score(self, model: Any, tokenizer: Any, tasks: Sequence[str]) -> Scores:
        scores: Scores = {}
        for suite in dict.fromkeys(self._of[task] for task in tasks):
            scores |= suite.score(model, tokenizer, [task for task in tasks if self._of[task] is suite])
        return {task: scores[task] for task in tasks}

    def scorer(self, task: str) -> str:
        return self._of[task].scorer(task)

    def identity(self, task: str) -> str:
        return self._of[task].identity(task)
