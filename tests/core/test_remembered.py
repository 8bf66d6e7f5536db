"""What is kept between runs, and that a file which changed in any way is hashed again."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from unmerge.core import remembered
from unmerge.core.records import sha256
from unmerge.core.settings import CACHE


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(CACHE, str(tmp_path / "cache"))
    monkeypatch.setattr(remembered, "_SETTLED", -1.0)
    return tmp_path / "cache"


def counted(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    hashed: list[Path] = []

    def count(file: Path) -> str:
        hashed.append(file)
        return sha256(file)

    monkeypatch.setattr(remembered, "sha256", count)
    return hashed


def test_an_untouched_file_is_hashed_once(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed, file = counted(monkeypatch), tmp_path / "weights"
    file.write_bytes(b"one")
    assert [remembered.remembered_hash(file) for _ in range(3)] == [sha256(file)] * 3
    assert len(hashed) == 1


def test_a_file_of_equal_size_and_time_is_hashed_again(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Writing in place and setting the time back leaves size, time and inode as they were."""
    hashed, file = counted(monkeypatch), tmp_path / "weights"
    file.write_bytes(b"one")
    before = file.stat()
    remembered.remembered_hash(file)
    with file.open("r+b") as stream:
        stream.write(b"two")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = file.stat()
    assert (after.st_size, after.st_mtime_ns, after.st_ino) == (before.st_size, before.st_mtime_ns, before.st_ino)
    assert remembered.remembered_hash(file) == sha256(file)
    assert len(hashed) == 2


def test_a_file_that_has_just_changed_is_not_remembered(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remembered, "_SETTLED", 3600.0)
    hashed, file = counted(monkeypatch), tmp_path / "weights"
    file.write_bytes(b"one")
    remembered.remembered_hash(file)
    remembered.remembered_hash(file)
    assert len(hashed) == 2


def test_arrays_come_back_and_broken_ones_do_not(cache: Path) -> None:
    arrays = {"model.a.weight": np.arange(4.0).reshape(2, 2)}
    remembered.keep("products", "key", arrays)
    assert remembered.recall("products", "other") is None
    found = remembered.recall("products", "key")
    assert found is not None
    np.testing.assert_array_equal(found["model.a.weight"], arrays["model.a.weight"])
    (file,) = (cache / "products").iterdir()
    file.write_bytes(file.read_bytes()[:40])
    assert remembered.recall("products", "key") is None


def test_nothing_is_kept_where_no_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(CACHE, raising=False)
    remembered.keep("products", "key", {"a": np.ones(1)})
    assert remembered.recall("products", "key") is None
