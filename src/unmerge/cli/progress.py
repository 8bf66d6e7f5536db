"""Progress bars on the terminal's error stream; none where it is not a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

#: told (steps done, steps in all)
Steps = Callable[[int, int], None]


class Bars:
    """The bars of one command."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def over(self, title: str) -> Callable[[Iterable[str]], Iterable[str]]:
        """A wrapper for loops whose length is known."""

        def watch(items: Iterable[str]) -> Iterator[str]:
            listed = list(items)
            bar = self._progress.add_task(title, total=len(listed))
            for item in listed:
                yield item
                self._progress.advance(bar)

        return watch

    def steps(self, title: str) -> Steps:
        """A bar for work that tells its own steps; it appears with the first one."""
        bars: list[object] = []

        def tell(done: int, total: int) -> None:
            if not bars:
                bars.append(self._progress.add_task(title, total=total))
            self._progress.update(bars[0], completed=done)  # type: ignore[arg-type]

        return tell


@contextmanager
def bars() -> Iterator[Bars]:
    """Show progress while the block runs."""
    columns = (
        TextColumn("{task.description:<28}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    # switched off, not merely unseen: where there is no terminal rich would still print an empty line
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        yield Bars(progress)
