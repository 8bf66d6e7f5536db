"""The house itself: its front doors, what starts fast, which way imports point, what a wheel holds."""

import importlib
import importlib.metadata
import os
import pkgutil
import re
import resource
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import torch
from beartype.roar import BeartypeCallHintViolation
from jaxtyping import TypeCheckError

import unmerge
import unmerge_lab
from unmerge.vectors import LowRank

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES = (unmerge, unmerge_lab)
ROOMS = sorted(f"{package.__name__}.{module.name}" for package in PACKAGES for module in pkgutil.iter_modules(package.__path__) if module.ispkg)

#: what ``unmerge --help`` must not wait for
HEAVY = {"accelerate", "datasets", "matplotlib", "mergekit", "numpy", "peft", "safetensors", "scipy", "sklearn", "torch", "transformers", "trl"}
HELP = """
import sys
from unmerge.cli import main
sys.argv = ["unmerge", "--help"]
try:
    main()
finally:
    print("loaded:", *sorted({name.partition(".")[0] for name in sys.modules}))
"""


def run(*command: str | Path, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command], cwd=cwd, env=os.environ | environment, capture_output=True, text=True, check=False, timeout=300
    )


@pytest.mark.parametrize("name", [*(package.__name__ for package in PACKAGES), *ROOMS])
def test_all_names_what_is_there(name: str) -> None:
    module = importlib.import_module(name)
    names = getattr(module, "__all__", [])
    assert len(names) == len(set(names))
    missing = [public for public in names if not hasattr(module, public)]
    assert not missing


def test_help_loads_nothing_heavy() -> None:
    done = run(sys.executable, "-c", HELP)
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout
    loaded = set(done.stdout.rpartition("loaded:")[2].split())
    assert "typer" in loaded
    assert not loaded & HEAVY


def test_help_answers_in_half_a_second() -> None:
    """Processor time, so that a busy machine does not count; the first run may have to compile."""
    times = []
    for _ in range(4):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert run(sys.executable, "-c", HELP, PYTHONDONTWRITEBYTECODE="").returncode == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(times) < 0.5


def test_console_script() -> None:
    (script,) = (entry for entry in importlib.metadata.distribution("unmerge").entry_points if entry.group == "console_scripts")
    assert script.name == "unmerge"
    assert callable(script.load())


def lint_imports(root: Path) -> subprocess.CompletedProcess[str]:
    """Run the contracts of pyproject.toml on the packages below ``root``."""
    program = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(cache_dir=None))"
    return run(sys.executable, "-c", program, cwd=root, PYTHONPATH=str(root / "src"))


def test_imports_point_down() -> None:
    done = lint_imports(ROOT)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("room", "line", "broken"),
    [
        ("unmerge/core", "import unmerge.vectors", "unmerge.core is not allowed to import unmerge.vectors"),
        ("unmerge/solvers", "import unmerge.vectors", "unmerge.solvers is not allowed to import unmerge.vectors"),
        ("unmerge/vectors", "import safetensors", "unmerge.vectors is not allowed to import safetensors"),
        ("unmerge/verification", "import unmerge_lab.zoo", "unmerge is not allowed to import unmerge_lab"),
        ("unmerge_lab/zoo", "import unmerge_lab.studies", "unmerge_lab.zoo is not allowed to import unmerge_lab.studies"),
    ],
)
def test_an_import_that_points_up_is_noticed(tmp_path: Path, room: str, line: str, broken: str) -> None:
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("data", "__pycache__"))
    with (tmp_path / "src" / room / "__init__.py").open("a") as module:
        module.write(f"\n{line}\n")
    done = lint_imports(tmp_path)
    assert done.returncode == 1, done.stderr
    assert broken in " ".join(done.stdout.split())


def test_a_wheel_holds_every_file_of_both_packages(tmp_path: Path) -> None:
    done = run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    held = set(zipfile.ZipFile(wheel).namelist())
    files = (path for path in (ROOT / "src").rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    assert not {path.relative_to(ROOT / "src").as_posix() for path in files} - held


def test_shapes_are_checked_while_tests_run() -> None:
    with pytest.raises((TypeCheckError, BeartypeCallHintViolation)):
        LowRank(torch.zeros(4, 2), torch.zeros(3, 5))


def test_every_requirement_is_pinned() -> None:
    def canonical(name: str) -> str:
        return re.sub(r"[-_.]+", "-", name).lower()

    pins = [line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert all(len(pin) == 2 and "+" not in pin[1] for pin in pins)
    requirements = PROJECT["project"]["dependencies"] + [line for extra in PROJECT["project"]["optional-dependencies"].values() for line in extra]
    names = {canonical(re.split(r"[\[<>=~! ]", line)[0]) for line in requirements} - {"unmerge"}
    assert not names - {canonical(name) for name, _ in pins}


def test_changelog_knows_the_version() -> None:
    assert f"## [{PROJECT['project']['version']}]" in (ROOT / "CHANGELOG.md").read_text()
