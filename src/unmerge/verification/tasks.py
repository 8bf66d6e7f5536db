"""Which task belongs to which atom: ``tasks.yml``, or the ``task`` that an adapter's own record names.

    pirate: [pirate]               # an atom, and the tasks that are its skill
    python_list: python_list       # one needs no brackets
    general: [copy, facts]         # benchmarks that belong to no atom

A task is a file of held-out examples beside it (``NAME.held_out.jsonl`` or ``NAME.jsonl``), scored by exact match, or as ``NAME.check.yml`` says,
which ``unmerge train --tasks`` writes; or else a task that lm-evaluation-harness knows, or that a task file in the same folder defines. In place of
the file, a name of the entry points ``unmerge.tasks`` means the list that a package brings: ``zoo`` is the embedded zoo's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from unmerge.core.errors import BadInput
from unmerge.core.examples import Example, read_examples
from unmerge.core.extensions import TASK_LISTS, extensions
from unmerge.core.records import read_json
from unmerge.decomposition import Dictionary
from unmerge.decomposition.dictionary import Vector, folder_of
from unmerge.evaluation.checks import Check
from unmerge.evaluation.generated import Generated
from unmerge.evaluation.harness import Harness
from unmerge.evaluation.suite import Examples, Suite, Together
from unmerge.evaluation.task_files import CHECK, GENERAL_TASKS, LEDGER, RECORD, TASK_LIST, read_check

_ENDINGS = (".held_out.jsonl", ".jsonl")


@dataclass(frozen=True)
class ReadyExamples:
    """Held-out items that lie in no folder.

    Attributes:
        of: the items of every task.
        source: what they belong to, as an error names it.
        hint: how to get a folder of them.
    """

    of: Mapping[str, Sequence[Example]]
    source: str
    hint: str


@dataclass(frozen=True)
class TaskList:
    """What is measured.

    Attributes:
        of: the tasks of every atom; atoms that no dictionary has are skills to be watched all the same.
        general: the tasks of none.
        folder: where examples and task files lie; None where no file was given.
        ready: the examples of all tasks, where they lie in no folder.
    """

    of: Mapping[str, tuple[str, ...]]
    general: tuple[str, ...] = ()
    folder: Path | None = None
    ready: ReadyExamples | None = None

    @property
    def skills(self) -> tuple[str, ...]:
        """Every task that belongs to an atom, once."""
        return tuple(dict.fromkeys(task for tasks in self.of.values() for task in tasks))

    @property
    def all(self) -> tuple[str, ...]:
        """Every task, the general ones last."""
        return (*self.skills, *self.general)

    def suite(self, *, harness: bool = False, limit: int | None = None) -> Suite:
        """What scores them.

        Args:
            harness: leave tasks with examples to lm-evaluation-harness too, where the folder has a task file for them.
            limit: items of each task at most.

        Raises:
            BadInput: a task is nowhere to be found, or the harness was asked for where there is no folder.
            MissingExtra: a task needs lm-evaluation-harness, which is not installed.
        """
        if harness and self.ready:
            raise BadInput(expected="a folder of tasks for lm-evaluation-harness", found=self.ready.source, where="--harness", hint=self.ready.hint)
        found = {} if harness else self._examples(limit)
        others = [task for task in self.all if task not in found]
        checks = self._checks(found)
        plain = {task: items for task, items in found.items() if task not in checks}
        suites: list[Suite] = [Examples(plain)] if plain else []
        if checks and self.folder is not None:
            suites.append(Generated({task: (found[task], check) for task, check in checks.items()}, self.folder / LEDGER))
        return Together([*suites, Harness(others, self.folder, limit)] if others else suites)

    def _checks(self, tasks: Iterable[str]) -> dict[str, Check]:
        """How answers are checked, where it is not by exact match of whole completions."""
        if self.folder is None:
            return {}
        files = {task: self.folder / f"{task}{CHECK}" for task in tasks}
        return {task: read_check(file) for task, file in files.items() if file.exists()}

    def _examples(self, limit: int | None) -> dict[str, list[Example]]:
        if self.ready:
            return {task: list(self.ready.of[task][:limit]) for task in self.all}
        if self.folder is None:
            return {}
        files = {
            task: self.folder / f"{task}{ending}" for ending in reversed(_ENDINGS) for task in self.all if (self.folder / f"{task}{ending}").exists()
        }
        return {task: read_examples(file)[:limit] for task, file in files.items()}


def read_tasks(given: Path | None, dictionary: Dictionary) -> TaskList:
    """What ``--tasks`` says, and for atoms that it does not name, what their folders say.

    Args:
        given: a tasks file, a folder with ``tasks.yml``, a name of the entry points ``unmerge.tasks``, or None.
        dictionary: the atoms.

    Raises:
        BadInput: no such file, broken YAML, tasks that are no names, or no task for any atom.
    """
    if given is not None and not given.exists() and (entry := extensions(TASK_LISTS).get(str(given))):
        brought: TaskList = entry.load()()
        return brought
    listed, folder = ({}, None) if given is None else _read(given / TASK_LIST if given.is_dir() else given)
    general = listed.pop(GENERAL_TASKS, ())
    of = listed | {atom.name: tasks for atom in dictionary.atoms if atom.name not in listed and (tasks := _own(atom))}
    if not of:
        raise BadInput(
            expected="tasks of at least one atom", found="none", where=given or "the dictionary", hint="give a tasks file (atom: tasks) with --tasks"
        )
    if both := set(general) & {task for tasks in of.values() for task in tasks}:
        raise BadInput(
            expected="general tasks that belong to no atom", found=", ".join(sorted(both)), where=given or "--tasks", hint="list each task once"
        )
    return TaskList(of, general, folder)


def _read(file: Path) -> tuple[dict[str, tuple[str, ...]], Path]:
    expected, hint = "a mapping from atoms to names of tasks", "write, for example, pirate: [pirate]"
    try:
        raw = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(expected=expected, found=error.strerror or str(error), where=file, hint="check the path") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadInput(expected=expected, found=f"broken YAML ({error})", where=file, hint="mend the file") from error
    if not isinstance(raw, dict) or not raw:
        raise BadInput(expected=expected, found="something else" if raw else "an empty file", where=file, hint=hint)
    listed = {}
    for atom, tasks in raw.items():
        names = _names(tasks)
        if names is None:
            raise BadInput(expected=expected, found=f"{tasks!r} for {atom}", where=file, hint=hint)
        listed[str(atom)] = names
    return listed, file.parent


def _own(atom: Vector) -> tuple[str, ...]:
    """What an atom's own record says that it is for."""
    file = folder_of(atom) / RECORD
    record = read_json(file, "an adapter's record") if file.exists() else {}
    return _names(record.get("task")) or () if isinstance(record, dict) else ()


def _names(tasks: object) -> tuple[str, ...] | None:
    """One name or a list of names; None for anything else."""
    listed: Iterable[object] = [tasks] if isinstance(tasks, str) else tasks if isinstance(tasks, list) else []
    names = tuple(name for name in listed if isinstance(name, str) and name)
    return names if names and len(names) == len(list(listed)) and len(set(names)) == len(names) else None
