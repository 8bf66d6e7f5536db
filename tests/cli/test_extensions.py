"""Commands and tasks that another package adds by entry points."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ENTRY_POINTS = """
[unmerge.commands]
hello = addition:hello
decompose = addition:hello
broken = addition:nothing
absent = no_such_package:command

[unmerge.tasks]
two = addition:two
"""
MODULE = '''
from unmerge.core.errors import BadInput
from unmerge.core.examples import Example
from unmerge.verification.tasks import ReadyExamples, TaskList


def hello(name: str) -> None:
    """Say hello."""
    if name == "nobody":
        raise BadInput(expected="a name", found=name, where="hello", hint="give one")
    print(f"hello {name}")


def two() -> TaskList:
    ready = ReadyExamples({"a": [Example("1", "2"), Example("3", "4")]}, "two items", "write them")
    return TaskList({"atom": ("a",)}, ready=ready)
'''
Call = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def call(tmp_path: Path) -> Call:
    """Run a program where the other package is installed."""
    metadata = tmp_path / "addition-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: addition\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text(ENTRY_POINTS)
    (tmp_path / "addition.py").write_text(MODULE)
    paths = os.pathsep.join(filter(None, (str(tmp_path), os.environ.get("PYTHONPATH"))))

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, *arguments], env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True, check=False)

    return run


MAIN = ("-c", "from unmerge.cli import main; main()")


def test_a_command_from_outside(call: Call) -> None:
    done = call(*MAIN, "hello", "you")
    assert (done.returncode, done.stdout) == (0, "hello you\n")
    refused = call(*MAIN, "hello", "nobody")
    assert refused.returncode == 2
    assert refused.stderr.endswith("unmerge: hello: expected a name, found nobody; give one\n")


def test_the_help_has_it_last(call: Call) -> None:
    lines = [line.split()[0] for line in call(*MAIN, "--help").stdout.partition("Commands:\n")[2].splitlines()]
    order = "demo decompose recover ablate verify audit train merge compress study synth zoo hello circuits"  # groups of commands come last
    assert lines == order.split()


def test_a_command_of_this_package_is_not_replaced(call: Call) -> None:
    assert "coefficients" in call(*MAIN, "decompose", "--help").stdout


def test_a_command_that_cannot_be_loaded_is_named(call: Call) -> None:
    done = call(*MAIN, "hello", "you")
    absent, broken = done.stderr.splitlines()
    assert absent == "unmerge: warning: the command absent of no_such_package:command cannot be loaded: No module named 'no_such_package'"
    assert broken.startswith("unmerge: warning: the command broken of addition:nothing cannot be loaded: ")


def test_tasks_from_outside(call: Call) -> None:
    program = """
from pathlib import Path
from unmerge.decomposition import Dictionary
from unmerge.verification import read_tasks
tasks = read_tasks(Path("two"), Dictionary((), ()))
print(tasks.all, tasks.suite(limit=1).tasks)
tasks.suite(harness=True)
"""
    done = call("-c", program)
    assert done.stdout == "('a',) ('a',)\n", done.stderr
    assert "expected a folder of tasks for lm-evaluation-harness, found two items; write them" in done.stderr
