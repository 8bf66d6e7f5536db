"""The examples run as they stand."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("*.py"))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_example(example: Path) -> None:
    done = subprocess.run([sys.executable, str(example)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    *found, after = done.stdout.splitlines()
    assert len(found) == 3
    removed = after.removeprefix("after subtracting ").partition(":")[0]
    assert removed in found[0]
    assert removed not in after.partition(": ")[2]
