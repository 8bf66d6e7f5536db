"""The matrix of the proof as a figure."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from unmerge.core.errors import need
from unmerge.core.records import cannot_write
from unmerge.verification.matrix import AblationMatrix


def plot_matrix(matrix: AblationMatrix, stem: Path) -> list[Path]:
    """Draw exact match by condition (rows) and task (columns) as ``stem.png`` and ``stem.svg``.

    Returns:
        The two files.
    """
    need("matplotlib", "plot")
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    tasks, skills = matrix.tasks, len(matrix.tasks) - len(matrix.general)
    size = (max(1.9 + 0.36 * len(tasks), 6), 1.9 + 0.42 * len(matrix.rows))  # the title needs 6 inches
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.imshow([[row.scores[task] for task in tasks] for row in matrix.rows], cmap="Blues", vmin=0, vmax=1, aspect="auto")
    axes.set_xticks(range(len(tasks)), tasks, rotation=55, ha="right", rotation_mode="anchor", fontsize=8)
    axes.set_yticks(
        range(len(matrix.rows)), [f"- {row.coefficient:.2f} x {row.removed}" if row.removed else "nothing removed" for row in matrix.rows], fontsize=9
    )
    axes.tick_params(length=0)
    axes.axvline(skills - 0.5, color="white", linewidth=4)
    for y, row in enumerate(matrix.rows):
        for x, task in enumerate(tasks):
            score = row.scores[task]
            axes.text(
                x,
                y,
                f"{score:.2f}".replace("0.", ".").replace("1.00", "1"),
                ha="center",
                va="center",
                fontsize=7,
                color="white" if score > 0.55 else "black",
            )
        if row.removed:
            axes.add_patch(Rectangle((tasks.index(matrix.task_of[row.removed]) - 0.5, y - 0.5), 1, 1, fill=False, edgecolor="#c0392b", linewidth=2))
    axes.spines[:].set_visible(False)
    axes.set_title("Exact match on held-out items; framed: the task of the removed component", fontsize=10, loc="left")
    files = [stem.with_suffix(".png"), stem.with_suffix(".svg")]
    for file in files:
        beside = file.with_name(f".{file.name}")
        try:
            # no date and no random ids in the file: the same record gives the same bytes
            with rc_context({"svg.hashsalt": "unmerge"}):
                figure.savefig(beside, format=file.suffix[1:], dpi=160, metadata={"Date": None} if file.suffix == ".svg" else None)
            beside.replace(file)
        except BaseException as error:
            with suppress(OSError):
                beside.unlink()
            if isinstance(error, OSError):
                raise cannot_write(file, error) from error
            raise
    return files
