"""Errors as one line and an exit status (4 is an audit that fails a condition); warnings as one line each."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import TypeVar

import typer

from unmerge.core.errors import UnmergeError

Command = TypeVar("Command", bound=Callable[..., None])

BAD_INPUT, FAILED, INTERRUPTED = 2, 4, 130


def friendly(command: Command) -> Command:
    """Say expected errors in one line, without a traceback: exit status 2, or 130 when interrupted."""

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

    return run  # type: ignore[return-value]


def warn(warnings: Iterable[str]) -> None:
    """Print warnings on the error stream."""
    for warning in warnings:
        typer.echo(f"unmerge: warning: {warning}", err=True)
