"""Who is told how far the work is."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol, runtime_checkable


@runtime_checkable
class Progress(Protocol):
    """What a verb tells of its progress: the bars of the command line, or a class of the caller's."""

    def over(self, title: str, /) -> Callable[[Iterable[str]], Iterable[str]]:
        """Return what wraps a loop over tensors or files; it yields the same items."""
        ...

    def steps(self, title: str, /) -> Callable[[int, int], None]:
        """Return what is called with (steps done, steps in all)."""
        ...


class Silent:
    """Progress that nobody looks at."""

    def over(self, title: str, /) -> Callable[[Iterable[str]], Iterable[str]]:
        return iter

    def steps(self, title: str, /) -> Callable[[int, int], None]:
        return lambda *_: None
