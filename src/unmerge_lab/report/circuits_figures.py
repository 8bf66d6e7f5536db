"""The figures of L3D's paper, redrawn from records: ours, with the published values where there are any."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean
from typing import Any

from unmerge_lab.report import published_circuits as published
from unmerge_lab.report.circuits_record import CircuitRecords, Record, ToyRecords
from unmerge_lab.report.figure import new_figure, save_figure

_OURS, _THEIRS, _TARGET, _SECOND = "#1f4e79", "#8c8c8c", "#c0392b", "#e08214"


def draw_figures(records: CircuitRecords, folder: Path) -> dict[str, Path]:
    """Draw every figure that the records allow.

    Args:
        records: of all experiments.
        folder: to write into; ``circuits-NAME.svg`` and ``.png``.

    Returns:
        Titles, with the figures' paths without an ending.
    """
    made: dict[str, Path] = {}

    def keep(title: str, name: str, figure: Any) -> None:
        stem = folder / f"circuits-{name}"
        save_figure(figure, stem)
        made[title] = stem

    for kind, own in records.toys.items():
        count = {"parallel": 15, "tmcs": 10, "tms": 5}.get(kind)
        if count and (count, 1) in own.found:
            keep(f"{own.toy['title']}: every subnetwork (V_out), and the direction it is read with (V_in)", kind, _pictures(own.found[count, 1]))
    if "tmcs" in records.toys and (10, 1) in records.toys["tmcs"].found:
        keep("TMCS: coefficients read back", "tmcs-coefficients", _coefficients(records.toys["tmcs"].found[10, 1]))
    curves = {kind: own for kind, own in records.toys.items() if len({count for count, rank in own.found if rank == 1}) > 1}
    if curves:
        keep("Reconstruction against the number of subnetworks", "number", _numbers(curves))
    shares = {kind: own for kind, own in records.toys.items() if any(record.get("by_share") for record in own.found.values())}
    if shares:
        keep("Reconstruction against the share of coefficients kept", "share", _shares(shares))
    ranked = {kind: own for kind, own in records.toys.items() if len({rank for count, rank in own.found if count == 8}) > 1}
    if ranked:
        keep("Reconstruction against the rank", "rank", _ranks(ranked))
    if any(own.interventions for own in records.toys.values()):
        keep("Selectivity of moving one direction", "selectivity", _selectivities(records))
        keep(
            "Selectivity and switching off: own outputs (full) and others (dotted) along every direction of the first model",
            "off",
            _switched_off(records),
        )
    if records.language:
        keep("Skills of the zoo's base with one subnetwork added", "language", _language(records.language))
    return made


def _pictures(record: Record) -> Any:
    """The weights of every subnetwork of the first run, a column each: V_out above, V_in below."""
    pictures, count = record["pictures"], record["settings"]["subnetworks"]
    matrices = [name for name, rows in pictures["decoder"].items() if name.endswith("weight")]
    figure = new_figure(max(0.62 * count + 1.2, 6.0), 5.2)
    grid = figure.subplots(2 * len(matrices), count, squeeze=False)
    for place, (side, matrix) in enumerate((side, matrix) for side in ("decoder", "encoder") for matrix in matrices):
        rows = pictures[side][matrix]
        inputs = len(pictures["decoder"]["decoder.bias"][0])
        hidden = len(rows[0]) // inputs
        shape = (hidden, inputs) if matrix.startswith("encoder") else (inputs, hidden)
        for k, axes in enumerate(grid[place]):
            values = [rows[k][i * shape[1] : (i + 1) * shape[1]] for i in range(shape[0])]
            largest = max(max(map(abs, row)) for row in values) or 1.0
            axes.imshow(values, cmap="RdBu", vmin=-largest, vmax=largest, aspect="auto")
            axes.set_xticks([])
            axes.set_yticks([])
            if place == 0:
                axes.set_title(str(k + 1), fontsize=7)
        label = f"{'V_out' if side == 'decoder' else 'V_in'}\n{matrix.split('.')[0]}"
        grid[place][0].set_ylabel(label, fontsize=7, rotation=0, ha="right", va="center")
    return figure


def _coefficients(record: Record) -> Any:
    figure = new_figure(6.4, 3.2)
    panels = figure.subplots(1, 2, sharey=True)
    points = [point for row in record["rows"] for point in row["read"]]
    for axes, place, label in zip(panels, (1, 0), ("the model's own map", "A"), strict=True):
        axes.scatter([point[place] for point in points], [point[2] for point in points], s=6, alpha=0.5, color=_OURS)
        axes.plot([0, 3], [0, 3], color=_THEIRS, linewidth=0.8)
        axes.set_xlabel(label)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("read from the subnetwork")
    return figure


def _numbers(toys: dict[str, ToyRecords]) -> Any:
    figure = new_figure(3.0 * len(toys), 3.1)
    for axes, (kind, own) in zip(figure.subplots(1, len(toys), squeeze=False)[0], toys.items(), strict=True):
        counts = sorted(count for count, rank in own.found if rank == 1)
        _curve(axes, counts, [own.mean((count, 1)) for count in counts], kind, [(count, 1) for count in counts])
        axes.set_title(own.toy["title"], fontsize=8, loc="left")
        axes.set_xlabel("subnetworks")
    return figure


def _shares(toys: dict[str, ToyRecords]) -> Any:
    """The curve over k, of decompositions that were trained at .1."""
    figure = new_figure(3.0 * len(toys), 3.1)
    for axes, own in zip(figure.subplots(1, len(toys), squeeze=False)[0], toys.values(), strict=True):
        for (count, rank), record in own.found.items():
            if rank == 1 and record.get("by_share"):
                curve = {float(share): fmean(errors) for share, errors in record["by_share"].items()}
                axes.plot(list(curve), list(curve.values()), "o-", markersize=3, label=f"{count}")
        axes.axvline(0.1, color=_THEIRS, linewidth=0.8, linestyle=":")
        axes.set_ylim(0)
        axes.set_title(own.toy["title"], fontsize=7, loc="left")
        axes.set_xlabel("share kept")
        axes.legend(fontsize=6, frameon=False, title="subnetworks", title_fontsize=6)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _ranks(toys: dict[str, ToyRecords]) -> Any:
    figure = new_figure(4.2 * len(toys), 3.1)
    for axes, (kind, own) in zip(figure.subplots(1, len(toys), squeeze=False)[0], toys.items(), strict=True):
        ranks = sorted(rank for count, rank in own.found if count == 8)
        _curve(axes, ranks, [own.mean((8, rank)) for rank in ranks], kind, [(8, rank) for rank in ranks])
        axes.set_title(own.toy["title"], fontsize=8, loc="left")
        axes.set_xlabel("rank, 8 subnetworks")
    return figure


def _switched_off(records: CircuitRecords) -> Any:
    """Mean |own output| (full) and mean |change| of the others (dotted) along each direction, over what the own output was."""
    shown = {own.toy["title"]: own.interventions["rows"][0]["circuits"] for own in records.toys.values() if own.interventions}
    across = min(len(shown), 3)
    figure = new_figure(3.2 * across, 2.6 * -(-len(shown) // across))
    panels = figure.subplots(-(-len(shown) // across), across, squeeze=False).flatten()
    for axes, (title, circuits) in zip(panels, shown.items(), strict=False):
        for circuit in circuits:
            steps, own, others = zip(*circuit["off"]["curve"], strict=True)
            axes.plot(steps, own, color=_OURS, linewidth=0.8, alpha=0.6)
            axes.plot(steps, others, color=_SECOND, linewidth=0.8, alpha=0.6, linestyle=":")
        axes.set_ylim(0, 2)
        axes.set_title(title, fontsize=7, loc="left")
        axes.set_xlabel("step", fontsize=7)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in panels[len(shown) :]:
        axes.set_visible(False)
    return figure


def _curve(axes: Any, x: list[int], y: list[float], kind: str, designs: list[tuple[int, int]]) -> None:
    axes.plot(x, y, "o-", color=_OURS, label="ours")
    for values, colour, style, label in (
        (published.RECONSTRUCTION.get(kind, {}), _THEIRS, "x--", "published"),
        (published.TARGETS.get(kind, {}), _TARGET, "_", "target"),
    ):
        known = [(place, values[design]) for place, design in zip(x, designs, strict=True) if design in values]
        if known:
            axes.plot(*zip(*known, strict=True), style, color=colour, label=label, markersize=8 if style == "_" else 5)
    axes.set_ylim(0)
    axes.set_ylabel("reconstruction")
    axes.legend(fontsize=7, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)


def _selectivities(records: CircuitRecords) -> Any:
    shown = {
        f"{own.toy['title']}{', middle layers' if key.endswith('middle') else ''}": values
        for own in records.toys.values()
        for key in ("selectivity", "selectivity_middle")
        if (values := own.selectivities(key))
    }
    figure = new_figure(7.0, 0.9 + 0.35 * len(shown))
    axes = figure.subplots()
    for place, values in enumerate(shown.values()):
        axes.plot([max(value, 0.1) for value in values], [place] * len(values), "|", color=_OURS, markersize=10)
        axes.plot(sorted(values)[len(values) // 2], place, "D", color=_SECOND, markersize=5)
    axes.set_yticks(range(len(shown)), list(shown), fontsize=8)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlabel("mean |change| of its own outputs over that of the others (diamond: median)")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _language(record: Record) -> Any:
    kinds = [kind for kind in ("contrastive", "random") if kind in record]
    rows = record[kinds[0]]["tasks"]
    figure = new_figure(8.0, 0.9 + 0.24 * len(rows))
    panels = figure.subplots(1, len(kinds), sharey=True, squeeze=False)[0]
    for axes, kind in zip(panels, kinds, strict=True):
        for place, row in enumerate(record[kind]["tasks"]):
            axes.barh(place - 0.2, row["after"], height=0.4, color=_OURS, label="its own skill" if not place else None)
            axes.barh(
                place + 0.2, max(row["largest_rise"][1], 0.0), height=0.3, color=_SECOND, label="largest rise of another" if not place else None
            )
        axes.set_title(f"{kind} references", fontsize=9, loc="left")
        axes.set_xlim(0, 1.02)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_yticks(range(len(rows)), [row["task"] for row in rows], fontsize=7)
    panels[0].invert_yaxis()
    panels[0].legend(fontsize=7, frameon=False)
    return figure
