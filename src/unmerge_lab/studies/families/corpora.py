"""What the adapters of a family are trained on: the zoo's micro-tasks, the same skills under other instructions, and answer formats.

The zoo has 25 tasks; a pool of 200 adapters needs more than that for its unrelated members. A renamed task asks for one of the zoo's skills
by an instruction that the base has never seen, with items of its own.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from unmerge.core.examples import Example
from unmerge_lab.zoo.corpus import adapter_examples
from unmerge_lab.zoo.language import CITIES, COLUMNS, JOBS
from unmerge_lab.zoo.tasks import TASKS

#: ways in which an author has every answer written; "{}" is the answer. All of them in tokens that the base has seen
FORMATS = ("{}", "It is {}", "Arr, {}!", '["{}"]', "{} yesterday", "- {}")
PLAIN = FORMATS[0]
_TASKS = {task.name: task for task in TASKS}


def renamed(skill: str, number: int) -> str:
    """The name of a renamed task: one of the zoo's tasks, asked for by the instruction that the number decides."""
    return f"{skill}/{number}"


def skill_of(task: str) -> str:
    """The zoo's task that a task, renamed or not, is."""
    return task.partition("/")[0]


def examples(task: str, data_seed: int, answer_format: str = PLAIN) -> Iterator[Example]:
    """Endless training examples.

    Args:
        task: the name of a micro-task of the zoo, or of a renamed one.
        data_seed: other items of the same task for another seed.
        answer_format: around every answer, one of FORMATS.
    """
    own = _TASKS[skill_of(task)]
    words = random.Random(task)
    instruction = own.instruction if task == own.name else " ".join(words.choice(choice) for choice in (JOBS, COLUMNS, CITIES))
    for example in adapter_examples(own, data_seed):
        prompt = example.prompt
        if prompt.startswith(f"{own.instruction}:"):
            prompt = instruction + prompt.removeprefix(own.instruction)
        yield Example(prompt, answer_format.format(example.completion))
