"""What can go wrong, said so that the reader knows what to do next.

UnmergeError            exit status 2; its text is one line
|-- BadInput            a file, folder, tensor or setting is not what it should be
|-- BadOutput           a result cannot be written
`-- MissingExtra        an optional library is not installed
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType


class UnmergeError(Exception):
    """Base of every error that is meant for the user; its text is a single line."""


class BadInput(UnmergeError):
    """An input is not what it should be.

    Args:
        expected: what would have been right.
        found: what is there instead.
        where: the file, folder or setting; ``tensor`` is named after it.
        hint: what to try, an imperative.
    """

    def __init__(self, *, expected: str, found: str, where: str | Path, hint: str, tensor: str | None = None) -> None:
        place = f"{where}, tensor {tensor}" if tensor else str(where)
        super().__init__(one_line(f"{place}: expected {expected}, found {found}; {hint}"))


def unknown_name(
    found: str, names: Iterable[str], where: str | Path, *, expected: str = "one of {}", otherwise: str = "choose one of them"
) -> BadInput:
    """The error for a name that is none of those there are; a near miss gets "did you mean".

    Args:
        found: the name that was given.
        names: those there are.
        where: it was given.
        expected: what would have been right, with ``{}`` where the names are listed.
        otherwise: the hint where no name is near. How near is difflib's own measure: six in ten letters, whatever their case.
    """
    by_letters = {name.casefold(): name for name in names}
    near = difflib.get_close_matches(found.casefold(), by_letters, n=1)
    hint = f"did you mean {by_letters[near[0]]}?" if near else otherwise
    return BadInput(expected=expected.format(", ".join(by_letters.values())), found=found, where=where, hint=hint)


class BadOutput(UnmergeError):
    """A result cannot be written.

    Args:
        where: the file or folder that was to be written.
        found: what the system answered.
        hint: what to try, an imperative.
    """

    def __init__(self, *, where: str | Path, found: str, hint: str) -> None:
        super().__init__(one_line(f"{where}: expected a place to write to, found: {found}; {hint}"))


class MissingExtra(UnmergeError):
    """An optional library is missing; the text holds the line that installs it."""

    def __init__(self, module: str, extra: str) -> None:
        super().__init__(f"{module} is not installed: expected the extra '{extra}'; run: pip install 'unmerge[{extra}]'")


def need(module: str, extra: str) -> ModuleType:
    """Import an optional library, or say which extra brings it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != module.split(".")[0]:
            raise
        raise MissingExtra(module, extra) from error


def one_line(text: str) -> str:
    """The text with every run of white space made one blank."""
    return " ".join(text.split())
