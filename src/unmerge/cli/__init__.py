"""The command line. Every command imports what it needs when it runs, so that ``unmerge --help`` answers at once.

Commands of other packages come from the entry points ``unmerge.commands``.
"""

from __future__ import annotations

import logging
import os

import typer

from unmerge.cli.ablate import ablate
from unmerge.cli.audit import audit
from unmerge.cli.compress import compress
from unmerge.cli.decompose import decompose
from unmerge.cli.friendly import friendly, warn
from unmerge.cli.merge import merge
from unmerge.cli.recover import recover
from unmerge.cli.train import train
from unmerge.cli.verify import verify
from unmerge.core.extensions import COMMANDS, extensions

#: the order of the help, for commands of this package and of others; names that are not listed come last, in alphabetical order
ORDER = "demo decompose recover ablate verify audit train merge compress study synth zoo circuits".split()

app = typer.Typer(
    name="unmerge",
    help="Tell what is inside a fine-tuned or merged language model, and prove it.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _register() -> None:
    """Give ``app`` the commands of this package and of others; one of this package is not replaced."""
    commands: dict[str, object] = {}
    for name, entry in extensions(COMMANDS).items():
        try:
            commands[name] = entry.load()
        except (ImportError, AttributeError) as error:  # another package's fault stops no command of this one
            warn([f"the command {name} of {entry.value} cannot be loaded: {error}"])
    commands |= {command.__name__: command for command in (decompose, recover, ablate, verify, audit, train, merge, compress)}
    # typer lists groups after commands
    for name in (*(name for name in ORDER if name in commands), *(name for name in commands if name not in ORDER)):
        command = commands[name]
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=name)
        elif callable(command):
            app.command(name)(friendly(command))


_register()


def main() -> None:
    """Entry point of the ``unmerge`` command."""
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # where it is installed, it tells every machine without a GPU what it lacks
    # torch reads it when it is loaded: large tensors in huge pages, which halves the time of whatever only moves memory
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    app()


__all__ = ["app", "main"]
