"""Figures as files: a picture and a drawing, the same bytes for the same record, never half a file."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from unmerge.core.errors import need
from unmerge.core.records import cannot_write


def new_figure(width: float, height: float) -> Any:
    """An empty figure of so many inches, without a window."""
    need("matplotlib", "plot")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Any, stem: Path) -> list[Path]:
    """Write ``stem.png`` and ``stem.svg``.

    Returns:
        The two files.
    """
    from matplotlib import rc_context

    files = [stem.with_name(f"{stem.name}.{kind}") for kind in ("png", "svg")]
    for file in files:
        beside = file.with_name(f".{file.name}")
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            # no date and no random ids in the file, so that the same record gives the same bytes; letters as letters, not as drawings
            with rc_context({"svg.hashsalt": "unmerge", "svg.fonttype": "none"}):
                figure.savefig(beside, format=file.suffix[1:], dpi=160, metadata={"Date": None} if file.suffix == ".svg" else None)
            beside.replace(file)
        except BaseException as error:
            with suppress(OSError):
                beside.unlink()
            if isinstance(error, OSError):
                raise cannot_write(file, error) from error
            raise
    return files
