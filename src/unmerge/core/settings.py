"""Where tensors are worked on and where results are kept: an argument of a verb, or else an environment variable.

An argument holds while the verb runs, in its threads too, and for no other caller: it is a context variable.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

#: the environment variables that are asked where no argument says otherwise
DEVICE, CACHE = "UNMERGE_DEVICE", "UNMERGE_CACHE"

_device: ContextVar[str | None] = ContextVar("device", default=None)
_cache: ContextVar[Path | None] = ContextVar("cache", default=None)


def device_name() -> str | None:
    """The device that was asked for, by an argument or the environment; None where it is left to torch."""
    return _device.get() or os.environ.get(DEVICE) or None


def cache_folder() -> Path | None:
    """The folder that results are kept in, by an argument or the environment; None where nothing is kept."""
    if (given := _cache.get()) is not None:
        return given
    named = os.environ.get(CACHE)
    return Path(named).expanduser() if named else None


@contextmanager
def settings(device: str | None = None, cache: Path | str | None = None) -> Iterator[None]:
    """Use a device and a cache while the block runs.

    Args:
        device: a name that torch has (``cpu``, ``cuda:1``); None for what held before.
        cache: a folder; None for what held before.
    """
    devices = _device.set(device) if device is not None else None
    caches = _cache.set(Path(cache).expanduser()) if cache is not None else None
    try:
        yield
    finally:
        if devices is not None:
            _device.reset(devices)
        if caches is not None:
            _cache.reset(caches)
