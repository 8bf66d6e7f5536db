"""A decomposition as a figure: the coefficient of every component, with its interval."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unmerge.core.errors import need

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from unmerge.decomposition.result import Decomposition

#: inches: the width, the height of a component, and that of the axis and the title
_WIDTH, _ROW, _FRAME = 6.4, 0.35, 1.2


def plot_coefficients(result: Decomposition, axes: Axes | None = None) -> Axes:
    """Draw a dot for every component, the largest share at the top, and a line for its interval.

    Args:
        result: with any number of components.
        axes: matplotlib's, to draw on; those of a new figure where none are given.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    figures = need("matplotlib.figure", "plot")
    components = result.components
    if axes is None:
        axes = figures.Figure(figsize=(_WIDTH, _FRAME + _ROW * max(len(components), 1)), layout="constrained").add_subplot()
    for place, component in enumerate(components):
        axes.plot(component.interval or (), [place] * len(component.interval or ()), color="tab:blue", linewidth=2)
        axes.plot([component.coefficient], [place], "o", color="tab:blue")
    axes.set_yticks(range(len(components)), [component.name for component in components])
    axes.invert_yaxis()
    axes.axvline(0, color="grey", linewidth=0.8)
    axes.set_xlabel("coefficient")
    axes.set_title(f"unexplained: {result.unexplained.share:.1%} of the squared norm")
    return axes
