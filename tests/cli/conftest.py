"""Running a command as from a shell, and inputs to damage."""

from __future__ import annotations

import resource
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from unmerge.cli import app

Run = Callable[..., Result]


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables are not folded."""
    monkeypatch.setenv("COLUMNS", "300")


@pytest.fixture
def run() -> Run:
    """Run a command in this process; what it prints comes back."""

    def invoke(*arguments: str | Path) -> Result:
        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    return invoke


@pytest.fixture
def refused(run: Run) -> Callable[..., str]:
    """Run a command that must be refused: exit status 2, nothing on stdout, one line on stderr, which comes back."""

    def invoke(*arguments: str | Path) -> str:
        result = run(*arguments)
        assert result.exit_code == 2, (result.output, result.exception)
        assert isinstance(result.exception, SystemExit)
        assert result.stdout == ""
        assert result.stderr.count("\n") == 1
        assert result.stderr.startswith("unmerge: ")
        return result.stderr.removeprefix("unmerge: ").rstrip("\n")

    return invoke


@pytest.fixture(scope="session")
def names(zoo: Path) -> list[str]:
    """Three known adapters of the zoo."""
    return sorted(path.name for path in (zoo / "known").iterdir())[:3]


@pytest.fixture
def room(zoo: Path, merged: Callable[..., Path], names: list[str], tmp_path: Path) -> Path:
    """A folder with ``base``, ``target`` (a merge of two adapters in bfloat16) and ``dictionary`` (the two and a third)."""
    shutil.copytree(zoo / "zoo-base", tmp_path / "zoo-base")
    shutil.copytree(merged({names[0]: 1.0, names[1]: 0.5}), tmp_path / "target")
    for name in names:
        shutil.copytree(zoo / "known" / name, tmp_path / "dictionary" / name)
    return tmp_path


@pytest.fixture
def small_disk() -> Callable[[int], object]:
    """No file may grow beyond so many bytes while the block runs; nor is bytecode kept, which Python would cut off and believe for ever."""

    @contextmanager
    def limit(size: int) -> Iterator[None]:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        kept, sys.dont_write_bytecode = sys.dont_write_bytecode, True
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            sys.dont_write_bytecode = kept

    return limit
