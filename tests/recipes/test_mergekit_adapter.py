"""mergekit's own business: what is used of it is there, and where it is not the error says what."""

from __future__ import annotations

import re
from pathlib import Path

import mergekit.io.tasks
import mergekit.merge
import pytest
from mergekit.io.tasks import LoaderCache

from unmerge.core.errors import BadInput
from unmerge.recipes import mergekit_adapter
from unmerge.recipes.mergekit_adapter import TESTED, USED, fresh_loaders, is_tested, mergekit_module, types_of_layers

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", USED)
def test_what_is_used_is_there(name: str) -> None:
    mergekit_adapter._check.cache_clear()
    assert mergekit_module(name).__name__ == name


def test_no_other_module_imports_mergekit() -> None:
    modules = (path for path in (ROOT / "src" / "unmerge").rglob("*.py") if "studies" not in path.parts)
    assert not [path.name for path in modules if re.search(r"^\s*(?:import|from) mergekit\b|need\(\"mergekit", path.read_text(), re.MULTILINE)]


@pytest.mark.parametrize(
    ("version", "tested"), [("0.1.4", False), ("0.1.5", True), ("0.1.9", True), ("0.1.6+cpu", True), ("0.2", False), ("0.2.0", False), ("1.0", False)]
)
def test_the_bound(version: str, tested: bool) -> None:
    assert is_tested(version) == tested


def test_the_bound_is_the_packages() -> None:
    first, last = (".".join(map(str, bound)) for bound in TESTED)
    assert f'"mergekit>={first},<{last}"' in (ROOT / "pyproject.toml").read_text()


def test_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    mergekit_adapter._check.cache_clear()
    monkeypatch.setattr(mergekit_adapter, "version", lambda _: "0.2.1")
    with pytest.raises(BadInput, match=r"mergekit: expected mergekit>=0\.1\.5,<0\.2, found 0\.2\.1; pip install"):
        mergekit_module("mergekit.merge")


@pytest.mark.parametrize(("holder", "name"), [(mergekit.merge, "_model_out_config"), (LoaderCache, "loaders")])
def test_a_name_that_is_gone_is_said(holder: object, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, dotted = next((module, used) for module, names in USED.items() for used in names if used.endswith(name))
    mergekit_adapter._check.cache_clear()
    monkeypatch.delattr(holder, name)
    with pytest.raises(BadInput, match=rf"mergekit: expected mergekit's {re.escape(module)}\.{re.escape(dotted)}, found none in version"):
        mergekit_module(module)


def test_patches_are_taken_back() -> None:
    plain = mergekit.merge._model_out_config

    def fails() -> None:
        with types_of_layers(), fresh_loaders():
            assert mergekit.merge._model_out_config is not plain
            LoaderCache.loaders["a"] = None
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert mergekit.merge._model_out_config is plain
    assert not LoaderCache.loaders
