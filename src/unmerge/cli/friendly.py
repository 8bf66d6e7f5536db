"""Errors as one line and an exit status (4 is an audit that fails a condition); warnings as one line each.

An error that nobody expected is one line as well, with its place: a traceback through other people's libraries helps no user. Whoever wants it sets
``UNMERGE_TRACEBACK=1``.
"""

from __future__ import annotations

import functools
import os
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

import typer

from unmerge.core.errors import UnmergeError, one_line

Command = TypeVar("Command", bound=Callable[..., None])

UNEXPECTED, BAD_INPUT, FAILED, INTERRUPTED = 1, 2, 4, 130
#: set, an unexpected error comes with its traceback
_TRACEBACK = "UNMERGE_TRACEBACK"


def friendly(command: Command) -> Command:
    """Say errors in one line, without a traceback: exit status 2, 130 when interrupted, or 1 for what nobody expected."""

    @functools.wraps(command)
    def run(*args: object, **kwargs: object) -> None:
        try:
            command(*args, **kwargs)
        except UnmergeError as error:
            typer.echo(f"unmerge: {error}", err=True)
            raise typer.Exit(BAD_INPUT) from error
        except KeyboardInterrupt as error:
            typer.echo("unmerge: interrupted; run the same command again to go on", err=True)
            raise typer.Exit(INTERRUPTED) from error
        except (typer.Exit, typer.Abort, typer.BadParameter, BrokenPipeError):
            raise  # not errors of ours: the parser's, and a reader of the output that went away
        except Exception as error:
            if os.environ.get(_TRACEBACK):
                raise
            typer.echo(f"unmerge: {_unexpected(error, command.__module__.partition('.')[0])}", err=True)
            raise typer.Exit(UNEXPECTED) from error

    return run  # type: ignore[return-value]


def _unexpected(error: Exception, package: str) -> str:
    """What went wrong, and where: the last place on the way there of this package, or of the one that the command comes from."""
    frames = traceback.extract_tb(error.__traceback__)
    places = {f"{os.sep}{name}{os.sep}" for name in ("unmerge", package)}
    ours = [frame for frame in frames if any(place in frame.filename for place in places)] or frames
    place = f"{Path(ours[-1].filename).name}, line {ours[-1].lineno}" if ours else "an unknown place"
    return one_line(f"an error that should not be: {type(error).__name__}: {error} ({place}); report it, with what {_TRACEBACK}=1 shows")


def warn(warnings: Iterable[str]) -> None:
    """Print warnings on the error stream."""
    for warning in warnings:
        typer.echo(f"unmerge: warning: {warning}", err=True)
