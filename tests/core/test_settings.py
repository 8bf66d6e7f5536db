"""Device and cache: an argument holds while its block runs, in threads too, and for nobody else."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch

from unmerge.core.settings import CACHE, DEVICE, cache_folder, device_name, settings
from unmerge.vectors import each_tensor


def test_arguments_go_before_the_environment_and_leave_it_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(DEVICE, "cuda:7")
    monkeypatch.setenv(CACHE, str(tmp_path / "environment"))
    with settings("cpu", tmp_path / "argument"):
        assert (device_name(), cache_folder()) == ("cpu", tmp_path / "argument")
        with settings(cache=tmp_path / "inner"):
            assert (device_name(), cache_folder()) == ("cpu", tmp_path / "inner")
        assert cache_folder() == tmp_path / "argument"
    assert (device_name(), cache_folder()) == ("cuda:7", tmp_path / "environment")


def test_settings_end_with_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(DEVICE, raising=False)
    with pytest.raises(ZeroDivisionError), settings("cpu"):
        _ = 1 / 0
    assert device_name() is None


def test_workers_see_the_settings_and_other_threads_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(DEVICE, raising=False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    shapes = {"a": (2,), "b": (2,)}
    seen: list[str | None] = []
    with settings("cpu"):
        assert list(each_tensor(list(shapes), shapes, lambda _: device_name())) == ["cpu", "cpu"]
        other = threading.Thread(target=lambda: seen.append(device_name()))
        other.start()
        other.join()
    assert seen == [None]
