"""A study's figures."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean
from typing import Any

from unmerge_lab.report import published
from unmerge_lab.report.figure import new_figure, save_figure
from unmerge_lab.report.study_tables import Summaries

_PRECISION, _RECALL, _THEIRS = "#1f4e79", "#e08214", "#8c8c8c"
_ROW = 0.27


def plot_components(found: Summaries, space: str, stem: Path) -> list[Path]:
    """Precision and recall by method where there is something to find, named atoms where there is nothing; a panel a group."""
    figure = new_figure(max(3.4 * len(found.groups), 6), 1.5 + _ROW * len(found.methods))
    panels = figure.subplots(1, len(found.groups), sharey=True, squeeze=False)[0]
    places = range(len(found.methods))
    for axes, group in zip(panels, found.groups, strict=True):
        rows = [found.get(group, found.overall, space, method) for method in found.methods]
        if group == "unknown":
            label = f"published nnls ({published.NAMED_UNKNOWN} of {published.ATOMS})"
            axes.barh(places, [row.sparsity if row else 0 for row in rows], color=_PRECISION, height=0.6)
            for place, row in zip(places, rows, strict=True):
                if row:
                    axes.text(row.sparsity, place, f" {row.sparsity:.1f}", va="center", fontsize=7)
            axes.axvline(published.NAMED_UNKNOWN, color=_THEIRS, linestyle=":", label=label)
            axes.set_xlabel("atoms named; none is right")
            axes.set_xlim(0, max(published.NAMED_UNKNOWN, *(row.sparsity for row in rows if row)) * 1.25)
        else:
            for place, row in zip(places, rows, strict=True):
                if row and row.recall is not None:
                    axes.plot([row.precision, row.recall], [place, place], color="#d0d0d0", linewidth=1.5, zorder=1)
                    axes.plot(row.precision, place, "o", color=_PRECISION, markersize=7, label="precision" if not place else None)
                    axes.plot(row.recall, place, "D", color=_RECALL, markersize=4, label="recall" if not place else None)
            _published(axes, found, group)
            axes.set_xlim(-0.03, 1.06)
            axes.set_xlabel("mean over targets")
        axes.set_title(group, loc="left", fontsize=10)
        axes.grid(axis="x", color="#ececec")
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_yticks(list(places), found.methods, fontsize=8)
    panels[0].invert_yaxis()
    labelled = {label: handle for axes in panels for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(labelled.values(), labelled.keys(), loc="outside lower center", ncols=len(labelled), fontsize=8, frameon=False)
    figure.suptitle(f"Components found, all merges, space {space}", x=0.01, ha="left", fontsize=11)
    return save_figure(figure, stem)


def _published(axes: Any, found: Summaries, group: str) -> None:
    """The published precision and recall, means over its merges, as crosses."""
    label: str | None = "published (precision x, recall +)"
    for place, method in enumerate(found.methods):
        values = [both for (of, name, _), both in published.PRECISION_RECALL.items() if (of, name) == (group, method)]
        if values:
            axes.plot(fmean(precision for precision, _ in values), place, "x", color=_THEIRS, markersize=6, label=label, zorder=1)
            axes.plot(fmean(recall for _, recall in values), place, "+", color=_THEIRS, markersize=8, zorder=1)
            label = None


def plot_errors(found: Summaries, space: str, stem: Path) -> list[Path]:
    """||t - t_hat|| / ||t|| by method and merge; a panel a group."""
    columns = [*found.merges, *found.kinds]
    rows = {group: [[found.get(group, merge, space, method) for merge in columns] for method in found.methods] for group in found.groups}
    values = {group: [[row.reconstruction_error if row else None for row in line] for line in matrix] for group, matrix in rows.items()}
    title = f"Reconstruction error ||t - t_hat|| / ||t||, space {space}"
    return _heat(values, found.methods, columns, title, "Blues", stem)


def plot_spaces(found: Summaries, stem: Path) -> list[Path]:
    """The share of perfect matches by method and space, over all merges; a panel a group."""
    overall = found.overall
    rows = {group: [[found.get(group, overall, space, method) for space in found.spaces] for method in found.methods] for group in found.groups}
    values = {group: [[row.perfect if row else None for row in line] for line in matrix] for group, matrix in rows.items()}
    return _heat(values, found.methods, found.spaces, "Perfect matches (nothing missed, nothing wrong), all merges", "Greens", stem)


def _heat(values: dict[str, list[list[float | None]]], rows: list[str], columns: list[str], title: str, colours: str, stem: Path) -> list[Path]:
    """A matrix a group, its numbers written into it; nothing where there is none."""
    figure = new_figure(1.6 + len(values) * max(0.42 * len(columns), 1.4), 1.7 + _ROW * len(rows))
    panels = figure.subplots(1, len(values), sharey=True, squeeze=False)[0]
    for axes, (group, matrix) in zip(panels, values.items(), strict=True):
        numbers = [[float("nan") if value is None else value for value in row] for row in matrix]
        axes.imshow(numbers, cmap=colours, vmin=0, vmax=1, aspect="auto")
        for y, row in enumerate(matrix):
            for x, value in enumerate(row):
                if value is not None:
                    text = f"{value:.2f}".removeprefix("0").removesuffix(".00") or "0" if value < 100 else f"{value:.0e}"
                    axes.text(x, y, text, ha="center", va="center", fontsize=6.5, color="white" if value > 0.6 else "black")
        axes.set_xticks(range(len(columns)), columns, rotation=50, ha="right", rotation_mode="anchor", fontsize=8)
        axes.set_yticks(range(len(rows)), rows, fontsize=8)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.set_title(group, loc="left", fontsize=10)
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    return save_figure(figure, stem)
