"""What other packages add to this one, by entry points.

    [project.entry-points."unmerge.commands"]
    zoo = "unmerge_lab.cli.zoo:zoo"

A group lists names and objects; an object is imported when it is asked for.
"""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points

#: commands of the command line: a function that typer understands, or a ``typer.Typer`` with commands of its own
COMMANDS = "unmerge.commands"
#: lists of tasks that ``--tasks NAME`` takes: a function without arguments that returns a ``TaskList``
TASK_LISTS = "unmerge.tasks"


def extensions(group: str) -> dict[str, EntryPoint]:
    """The entry points of a group, by name in alphabetical order."""
    return {entry.name: entry for entry in sorted(entry_points(group=group), key=lambda entry: entry.name)}
