"""Errors as one line: what was expected, what was interrupted, and what nobody thought of."""

from __future__ import annotations

import pytest
import typer
from click.testing import Result
from typer.testing import CliRunner

from unmerge.cli.friendly import friendly
from unmerge.core.errors import BadInput


def run(error: BaseException) -> Result:
    """A command that raises."""

    def command() -> None:
        raise error

    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(friendly(command))
    return CliRunner().invoke(app, [])


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (BadInput(expected="a", found="b", where="c", hint="do d"), 2, "unmerge: c: expected a, found b; do d\n"),
        (KeyboardInterrupt(), 130, "unmerge: interrupted; run the same command again to go on\n"),
        (typer.Exit(4), 4, ""),
        (
            KeyError("a\nb"),
            1,
            "unmerge: an error that should not be: KeyError: 'a\\nb' (test_friendly.py, line {}); report it, with what UNMERGE_TRACEBACK=1 shows\n",
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_errors(error: BaseException, status: int, said: str) -> None:
    result = run(error)
    assert result.exit_code == status
    assert isinstance(result.exception, SystemExit)
    start, _, end = said.partition("{}")
    assert result.stderr.startswith(start)
    assert result.stderr.endswith(end)
    assert result.stderr.count("\n") <= 1
    assert result.stdout == ""


def test_the_traceback_for_those_who_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNMERGE_TRACEBACK", "1")
    assert isinstance(run(KeyError("a")).exception, KeyError)
