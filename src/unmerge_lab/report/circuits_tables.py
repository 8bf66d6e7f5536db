"""Tables of the circuit experiments: the row of each, its target and the published value beside what was measured."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, median
from typing import Any

from unmerge_lab.report import published_circuits as published
from unmerge_lab.report.circuits_record import CircuitRecords, Record, ToyRecords

Table = tuple[list[str], list[list[str]]]


def verdicts(records: CircuitRecords) -> Table:
    """Every target with what was measured: yes or no."""
    rows: list[list[str]] = []

    def add(what: str, target: str, measured: str, met: bool) -> None:
        rows.append([what, target, measured, "yes" if met else "no"])

    toys = records.toys
    if "tms" in toys and (5, 1) in toys["tms"].found:
        runs = toys["tms"].found[5, 1]["rows"]
        good = [row for row in runs if row["matched_97"] == 5]
        both = [row for row in good if row["reconstruction"] <= 0.20]
        need = 19 * len(runs) / 20
        add("TMS: runs with 5 of 5 circuits at .97 on both matrices", "19 of 20", f"{len(good)} of {len(runs)}", len(good) >= need)
        add("TMS: these, with a reconstruction of .20 or less", "19 of 20", f"{len(both)} of {len(runs)}", len(both) >= need)
    if "parallel" in toys and (15, 1) in toys["parallel"].found:
        runs = toys["parallel"].found[15, 1]["rows"]
        least = min(row["matched_95"] for row in runs)
        add("three in parallel: circuits at .95, worst run", "15 of 15", f"{least} of 15", least == 15)
    if "tmcs" in toys and (10, 1) in toys["tmcs"].found:
        runs = toys["tmcs"].found[10, 1]["rows"]
        features, fit = min(row["features"] for row in runs), [fmean(row["r2_model_by_feature"]) for row in runs]
        add("TMCS: inputs with a subnetwork, worst run", "10 of 10", f"{features} of 10", features == 10)
        measured = f"{fmean(fit):.3f} ({min(fit):.3f} in the worst run)"
        add("TMCS: mean r2 by subnetwork against the model's map, over runs", ">= .96", measured, fmean(fit) >= 0.96)
    for kind in ("high-rank", "high-rank-shared"):
        if kind in toys:
            runs = [row for record in toys[kind].found.values() for row in record["rows"]]
            recovered = [row["recovered"] for row in runs]
            spare = [_spare(row) for row in runs]
            add(f"{toys[kind].toy['title']}: groups recovered, worst run of all ranks", "5 of 5", f"{min(recovered)} of 5", min(recovered) == 5)
            add(f"{toys[kind].toy['title']}: largest activity of a spare subnetwork", "< .01", f"{max(spare):.3f}", max(spare) < 0.01)
    for kind, own in toys.items():
        for design, target in published.TARGETS.get(kind, {}).items():
            if design in own.found:
                value, least = own.mean(design), fmean(row["floor"] for row in own.found[design]["rows"])
                beyond = f" (no {design[0]} directions leave less than {least:.3f})" if least > target else ""
                add(f"{own.toy['title']}: reconstruction, {_named(design)}", f"<= {target:.2f}", f"{value:.3f}{beyond}", value <= target)
    for kind, key, target in (("tms", "selectivity", 10), ("square", "selectivity", 5), ("square", "selectivity_middle", 5)):
        if kind in toys and (values := toys[kind].selectivities(key)):
            title = f"{toys[kind].toy['title']}: median selectivity{', middle layers alone' if key.endswith('middle') else ''}"
            add(title, f">= {target}", f"{median(values):.1f}", median(values) >= target)
    slowest = max((record["seconds"] / record["runs"] for own in toys.values() for record in own.found.values()), default=0.0)
    add("one toy decomposition, seconds of processor time (a design over its runs), the slowest", "< 60", f"{slowest:.0f}", slowest < 60)
    minutes = (sum(own.seconds for own in toys.values()) + (records.language["seconds"] if records.language else 0.0)) / 60
    add("everything on this page, minutes of one processor", "< 30", f"{minutes:.0f}", minutes < 30)
    return ["what", "target", "measured", "met"], rows


def _spare(row: Record) -> float:
    """The largest activity of a subnetwork that stands for no group."""
    others = [active for k, active in enumerate(row["active"]) if k not in row["standing_for"]]
    return max(others, default=0.0)


def _named(design: tuple[int, int]) -> str:
    return f"{design[0]} of rank {design[1]}"


def reconstructions(own: ToyRecords, kind: str) -> Table:
    """Every design of a toy model."""
    rows = []
    for design, record in own.found.items():
        values = own.reconstructions(design)
        theirs = published.RECONSTRUCTION.get(kind, {}).get(design)
        spare = fmean(row["spare"] for row in record["rows"])
        cosines = [abs(value) for row in record["rows"] for value in row["encoder_decoder_cosine"]]
        floors = [fmean(row[key] for row in record["rows"]) for key in ("floor", "floor_published")]
        cells = [_named(design), f"{fmean(values):.3f}", f"{min(values):.3f} to {max(values):.3f}", *(f"{each:.3f}" for each in floors)]
        cells.append(f"{theirs:.3f}" if theirs is not None else "")
        rows.append([*cells, f"{spare:.1f}", f"{median(cosines):.2f}", f"{record['seconds'] / record['runs']:.0f}"])
    head = ["subnetworks", "reconstruction", "over runs", "floor", "floor, published gradients", "published", "spare", "cos(V_in, V_out)", "s a run"]
    return head, rows


def matches(own: ToyRecords) -> Table:
    """Runs of an autoencoder whose circuits are features."""
    rows = []
    for design, record in own.found.items():
        runs = record["rows"]
        for name, values in (
            ("least cosine, as directions", [row["least_cosine"] for row in runs]),
            ("least cosine, as weights", [row["least_cosine_weights"] for row in runs]),
            ("MMCS, as directions", [row["mmcs"] for row in runs]),
            ("MMCS, as weights", [row["mmcs_weights"] for row in runs]),
        ):
            rows.append([_named(design), name, f"{min(values):.3f}", f"{median(values):.3f}", f"{max(values):.3f}"])
    return ["subnetworks", "", "least", "median", "most"], rows


def coefficients(own: ToyRecords) -> Table:
    """TMCS: r2 of what is read back."""
    rows = []
    for design, record in own.found.items():
        for row in record["rows"]:
            cells = [
                _named(design),
                str(row["seed"]),
                str(row["features"]),
                f"{fmean(row['r2_model_by_feature']):.3f}",
                f"{fmean(row['r2_truth']):.3f}",
            ]
            rows.append([*cells, f"{row['model_against_truth']:.3f}", f"{row['ceiling']:.3f}"])
    return ["subnetworks", "seed", "inputs served", "r2, model's map", "r2, A", "model against A", "ceiling (rank 5 of A)"], rows


def groups(own: ToyRecords) -> Table:
    """High rank: groups recovered."""
    rows = []
    for design, record in own.found.items():
        runs = record["rows"]
        recovered, least = ", ".join(str(row["recovered"]) for row in runs), min(min(row["inside"]) for row in runs)
        rows.append([_named(design), recovered, f"{least:.2f}", f"{max(map(_spare, runs)):.3f}"])
    return ["subnetworks", "groups recovered, by run", "least share inside its group", "largest activity of a spare one"], rows


def interventions(records: CircuitRecords) -> Table:
    """Every kind of intervention, by toy model."""
    rows = []
    for own in records.toys.values():
        if not own.interventions:
            continue
        circuits = [circuit for row in own.interventions["rows"] for circuit in row["circuits"]]
        pairs = [pair for row in own.interventions["rows"] for pair in row["two"]]
        values, middle = own.selectivities(), own.selectivities("selectivity_middle")
        rows.append(
            [
                own.toy["title"],
                f"{median(values):.1f}",
                f"{min(values):.1f}",
                f"{median(middle):.1f}" if middle else "",
                f"{median(pair['selectivity'] for pair in pairs):.1f}" if pairs else "",
                f"{median(pair['apart'] for pair in pairs):.2f}" if pairs else "",
                f"{median(circuit['off']['left'] for circuit in circuits):.2f}",
                f"{median(circuit['off']['others'] for circuit in circuits):.2f}",
            ]
        )
    head = ["model", "selectivity", "least", "middle layers", "two at once", "not additive", "left when off", "others, then"]
    return head, rows


def baselines(record: Record) -> Table:
    """Simpler methods on TMS."""
    names = list(record["rows"][0])
    rows = []
    for name in names:
        own = [row[name] for row in record["rows"]]
        rows.append(
            [name, *(f"{fmean(row[key] for row in own):.{digits}f}" for key, digits in (("matched_97", 1), ("least_cosine", 3), ("mmcs", 3)))]
        )
    return ["method", "circuits matched at .97, of 5", "least cosine", "MMCS"], rows


#: a model has a property where the mean over its runs is above this: features a dimension, overlap, rank, left when off
_HAS = (1.0, 0.1, 2.0, 0.1)


def properties(records: CircuitRecords) -> Table:
    """Which model has which property, as measured; where the source says otherwise of its own model, that too."""
    rows = []
    for kind, own in records.toys.items():
        if not own.interventions:
            continue
        runs = own.interventions["rows"]
        values = [fmean(row["properties"][key] for row in runs) for key in ("features_per_dimension", "overlap", "rank")]
        values.append(median(circuit["off"]["left"] for row in runs for circuit in row["circuits"]))
        cells = []
        for value, least, theirs in zip(values, _HAS, published.PROPERTIES[kind], strict=True):
            word = "yes" if value > least else "no"
            cells.append(f"{word} ({value:.2f})" + ("" if (value > least) == theirs else f"; published: {'yes' if theirs else 'no'}"))
        rows.append([own.toy["title"], *cells])
    head = ["model", "feature superposition (features a dimension)", "circuit superposition (overlap)", "rank above 2 (rank of a circuit's map)"]
    return [*head, "complex landscape (left when off)"], rows


def frontier(record: Record) -> Table:
    """X -> X^2: error and floor against training."""
    rows = record["rows"]
    numbers = list(rows[0]["floors"])
    cells = [
        [row["title"].split(", ")[1], str(row["steps"]), f"{row['error']:.2f}", *(f"{row['floors'][number]:.3f}" for number in numbers)]
        for row in rows
    ]
    return ["X -> X^2", "steps", "error", *(f"floor, {number} directions" for number in numbers)], cells


def skills(rows: Sequence[Record]) -> Table:
    """The language model: every task's own subnetwork."""
    head = [
        "task",
        "subnetwork",
        "named for",
        "base",
        "with it",
        "largest other rise",
        "largest fall",
        "adapter",
        "adapter without it",
        "without twice it",
        "contained",
        "in others",
    ]
    return head, [
        [
            row["task"],
            str(row["subnetwork"]),
            row["named"],
            f"{row['before']:.2f}",
            f"{row['after']:.2f}",
            f"{row['largest_rise'][1]:+.2f} ({row['largest_rise'][0]})",
            f"{row['largest_fall'][1]:+.2f} ({row['largest_fall'][0]})",
            _optional(row.get("adapter")),
            _optional(row.get("adapter_without")),
            _optional(row.get("adapter_without_twice")),
            _optional(row["containment"], 3),
            _optional(row["others"], 3),
        ]
        for row in rows
    ]


def verified(rows: Sequence[Record]) -> Table:
    """Subnetworks through ``verify``."""
    head = ["target", "named in it", "taken out", "skill before", "after", "other skills", "general", "controls that do it too", "verdict"]
    return head, [
        [
            row["target"],
            ", ".join(f"{name} {value:.2f}" for name, value in row["named"].items()) or "nothing",
            f"{one['removed']} {one['coefficient']:.2f}",
            f"{one['before']:.2f}",
            f"{one['after']:.2f}",
            _optional(one["others"], 3),
            _optional(one["general"], 3),
            f"{one['controls_verified']} of {one['controls']}",
            one["verdict"],
        ]
        for row in rows
        for one in row["components"]
    ]


def named(subnetworks: Sequence[Record]) -> Table:
    """The language model: what each subnetwork serves and moves."""
    rows = [
        [str(place), own["task"], f"{own['share']:.2f}", f"{own['step']:+.1f}", _tokens(own["raises"]), _tokens(own["lowers"])]
        for place, own in enumerate(subnetworks)
    ]
    return ["subnetwork", "serves", "share", "step", "raises", "lowers"], rows


def tuned(rows: Sequence[Record]) -> Table:
    """Fine-tuning inside a few subnetworks."""
    cells = [
        [
            row["task"],
            ", ".join(map(str, row["subnetworks"])),
            f"{row['loss'][0]:.2f} to {row['loss'][1]:.2f}",
            f"{row['after']:.2f}",
            f"{row['others']:.2f}",
            f"{row['general']:.2f}",
        ]
        for row in rows
    ]
    return ["task", "subnetworks", "loss", "its skill after", "best other task", "least general task"], cells


def _tokens(tokens: Sequence[str]) -> str:
    return ", ".join(f"`{token.strip() or ' '}`".replace("|", "\\|") for token in tokens)


def _optional(value: Any, digits: int = 2) -> str:
    return "" if value is None else f"{value:.{digits}f}"
