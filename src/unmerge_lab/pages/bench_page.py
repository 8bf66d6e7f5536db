"""Write docs/bench.md and its figure from the record of `make bench`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from unmerge.core.records import read_json, write_text
from unmerge_lab.report.figure import new_figure, save_figure
from unmerge_lab.report.study_tables import table

_WAYS = {
    "expanded": "expand, mask to 100k, solve",
    "gram": "inner products",
    "known": "the same, the dictionary's kept",
    "certificate": "certificate, beyond them",
    "read": "reading the same bytes once",
    "dense": "NNLS on all expanded weights",
}
_COLOURS = {"expanded": "#8c8c8c", "gram": "#1f4e79", "known": "#5b9bd5", "certificate": "#e08214"}


def main() -> None:
    """Read the record, draw, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bench", type=Path, default=Path("runs/bench.json"))
    parser.add_argument("--out", type=Path, default=Path("docs/bench.md"))
    arguments = parser.parse_args()
    record = read_json(arguments.bench, "the benchmark's record; run 'make bench'")
    rows = record["rows"]
    sections = [
        "# Large models, measured",
        (
            f"Made by `make bench` on synthetic models with real shapes (`unmerge synth`), {record['threads']} threads. "
            "[What is done for large models](large-models.md). Seconds of the processor, over all threads, are what "
            "can be compared where a machine had other work; seconds of the clock are beside them. Memory is the growth of what is resident."
        ),
    ]
    written: dict[str, Callable[[dict[str, Any]], list[str]]] = {
        "headline": lambda found: ["## One layer of Qwen2.5-7B", *(_headline(name, row) for name, row in found.items())],
        "command": lambda found: ["## An adapter as target, all attention modules of Qwen2.5-7B", _command(found)],
        "whole": lambda found: ["## The whole model", *(_whole(row, rows.get("headline", {})) for row in found.values())],
        "growth": lambda found: ["## Growth", _growth(found), _figure(found, arguments.out)],
        "detection": lambda found: ["## Precision and recall at a 7B model's shapes", _detection(found)],
    }
    sections += [section for name, write in written.items() if name in rows for section in write(rows[name])]
    if missing := [name for name in written if name not in rows]:
        sections.append(f"Not in this record: {', '.join(missing)} (`make bench ROW={missing[0]}`).")
    versions = {"python": record["environment"]["python"], **record["environment"]["versions"]}
    sections += ["## Versions", ", ".join(f"{name} {version}" for name, version in versions.items()) + "."]
    write_text(arguments.out, "\n\n".join(sections) + "\n")


def _headline(name: str, row: dict[str, Any]) -> str:
    return f"### {name.capitalize()}\n\n{_about(row)}\n\n{_ways(row)}"


def _command(runs: dict[str, Any]) -> str:
    told = (
        "28 layers, 25 adapters of rank 32, no base. The command includes Python's start and imports, the reading of 1 GB and the hashes of all "
        "files; the decomposition is what its result says. Memory is the whole process's."
    )
    lines = [[run["method"], run["kept"], f"{run['decomposition']:.1f}", f"{run['seconds']:.1f}", f"{run['mib']:.0f}"] for run in runs.values()]
    return told + "\n\n" + table(["method", "kept from before", "decomposition, s", "command, s", "memory, MiB"], lines)


def _whole(row: dict[str, Any], headline: dict[str, Any]) -> str:
    """The ways that were measured, and the slowest by what it takes for one layer: all layers have the same shapes."""
    one = headline.get("all linear modules, checkpoint", {"ways": {}})["ways"].get("expanded")
    told = ""
    if one is not None:
        row = row | {"ways": {"expanded": one | {figure: one[figure] * row["layers"] for figure in ("cpu", "seconds")}} | row["ways"]}
        told = " Expanding was not run: its figures are those of one layer, above, times the number of layers; its memory is for one."
    return f"All linear modules of {row['layers']} layers of {row['architecture']}: {_about(row)} Once, files read from disk.{told}\n\n{_ways(row)}"


def _about(row: dict[str, Any]) -> str:
    return f"{row['weights']:,} weights, {row['adapters']} adapters of rank {row['rank']}."


def _ways(row: dict[str, Any]) -> str:
    slowest = row["ways"].get("expanded", {"cpu": float("nan"), "seconds": float("nan")})
    lines = [
        [
            title,
            f"{found['cpu']:.2f}",
            f"{found['seconds']:.2f}",
            f"{slowest['cpu'] / found['cpu']:.1f}" if found["cpu"] else "",
            f"{slowest['seconds'] / found['seconds']:.1f}" if found["seconds"] else "",
            f"{found['mib']:.0f}",
        ]
        for way, title in _WAYS.items()
        if (found := row["ways"].get(way))
    ]
    titles = ["way", "processor, s", "clock, s", "times less processor", "times less clock", "memory, MiB"]
    return table(titles, lines)


def _growth(growth: dict[str, Any]) -> str:
    lines = []
    for varied, found in growth.items():
        sizes = " / ".join(f"{point[varied]:,}" for point in found["points"])
        for way, exponent in found["exponents"].items():
            seconds = " / ".join(f"{point['ways'][way]['cpu']:.2f}" for point in found["points"])
            lines.append([varied, sizes, _WAYS[way], seconds, f"{exponent:.2f}"])
    told = "Seconds of the processor grow as size to the power of the exponent, fitted to three sizes; what is not varied: Qwen2.5-1.5B's attention, "
    grown = told + "four layers, 12 adapters of rank 32.\n\n" + table(["varied", "sizes", "way", "processor, s", "exponent"], lines)
    points = [point for found in growth.values() for point in found["points"] if "dense" in point["ways"]]
    if not points:
        return grown
    dense = [
        [
            f"{point['weights']:,}",
            str(point["adapters"]),
            *(f"{point['ways'][way]['cpu']:.2f}" for way in ("gram", "dense")),
            f"{point['ways']['dense']['mib']:.0f}",
        ]
        for point in points
    ]
    titles = ["weights", "adapters", f"{_WAYS['gram']}, processor, s", f"{_WAYS['dense']}, processor, s", "its memory, MiB"]
    return grown + "\n\nWhere all expanded weights fit into 3 GB:\n\n" + table(titles, dense)


def _figure(growth: dict[str, Any], page: Path) -> str:
    return f"![Seconds over sizes](images/{_draw(growth, page.parent / 'images' / 'bench-growth').name})"


def _draw(growth: dict[str, Any], stem: Path) -> Path:
    figure = new_figure(10, 3)
    panels = figure.subplots(1, len(growth), squeeze=False)[0]
    for axes, (varied, found) in zip(panels, growth.items(), strict=True):
        sizes = [point[varied] for point in found["points"]]
        for way in found["exponents"]:
            colour = _COLOURS[way]
            seconds = [point["ways"][way]["cpu"] for point in found["points"]]
            axes.plot(sizes, seconds, "o-", color=colour, markersize=4, label=_WAYS[way])
            axes.annotate(f"{found['exponents'][way]:.2f}", (sizes[-1], seconds[-1]), (4, 0), textcoords="offset points", fontsize=8, color=colour)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xticks(sizes, [f"{size / 1e6:.0f}M" if size > 1e5 else str(size) for size in sizes], fontsize=8)
        axes.minorticks_off()
        axes.set_title(varied, loc="left", fontsize=10)
        axes.grid(color="#ececec")
        axes.margins(x=0.2)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("processor, s")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    return next(file for file in save_figure(figure, stem) if file.suffix == ".svg")


def _detection(found: dict[str, Any]) -> str:
    lines = []
    for row in found.values():
        recall = "" if row["recall"] is None else f"{row['recall']:.2f}"
        truth, named = (", ".join(sorted(row[side])) or "none" for side in ("truth", "named"))
        lines.append([row["modules"], row["group"], row["merge"], truth, named, f"{row['precision']:.2f}", recall, f"{row['seconds']:.1f}"])
    told = (
        "Attention of two layers, and all linear modules of one. Targets of three components in bfloat16, 25 adapters of rank 32 in the "
        "dictionary, one adapter .3% of the weights' norm."
    )
    titles = ["modules", "group", "merge", "in the target, of the dictionary", "named", "precision", "recall", "seconds"]
    return told + "\n\n" + table(titles, lines)


if __name__ == "__main__":
    main()
