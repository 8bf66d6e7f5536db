"""Documents fail when they are stale: the site builds without a warning, commands are those of the program, examples run."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [path for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))) if path.exists()]
EXAMPLES = [page for page in PAGES if "```python\n" in page.read_text()]


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    parts = [str(part) for part in command]
    return subprocess.run(parts, cwd=ROOT, env=os.environ | {"COLUMNS": "100"}, capture_output=True, text=True, check=False, timeout=300)


def test_site_builds_without_a_warning_and_fetches_nothing(tmp_path: Path) -> None:
    done = run(sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", tmp_path)
    assert done.returncode == 0, done.stderr
    fetched = re.compile(r"""<(?:script|img|iframe)[^>]+src=["']?https?:|<link[^>]+rel=["']?(?:stylesheet|preconnect)[^>]+href=["']?https?:""")
    pages = list(tmp_path.rglob("*.html"))
    for folder, package in (("api", "unmerge"), ("lab-api", "unmerge_lab")):
        rooms = {door.parent.name for door in (ROOT / "src" / package).glob("*/__init__.py")}
        assert rooms == {page.stem for page in pages if page.parent.name == folder}
    assert not [page.name for page in pages if fetched.search(page.read_text())]


def test_commands_page_is_up_to_date(tmp_path: Path) -> None:
    fresh = tmp_path / "commands.md"
    done = run(Path(sys.executable).with_name("typer"), "unmerge.cli", "utils", "docs", "--name", "unmerge", "--output", fresh)
    assert done.returncode == 0, done.stderr
    assert (ROOT / "docs" / "commands.md").read_text() == fresh.read_text(), "run: make docs-commands"


@pytest.mark.parametrize("page", EXAMPLES, ids=lambda page: page.name)
def test_examples_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The Python blocks of a page, one after the other, as one program."""
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
    exec(compile("\n".join(blocks), str(page), "exec"), {"__name__": "example"})
