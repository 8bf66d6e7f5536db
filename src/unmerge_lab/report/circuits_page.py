"""Circuit experiments as a page: HTML that needs nothing beside it, or Markdown for the documentation. Made from records alone."""

from __future__ import annotations

import html
import json
import re
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from tempfile import TemporaryDirectory

from unmerge.core.records import write_text
from unmerge_lab.report import circuits_tables as tables
from unmerge_lab.report.circuits_figures import draw_figures
from unmerge_lab.report.circuits_record import CircuitRecords, Record
from unmerge_lab.report.circuits_tables import Table
from unmerge_lab.report.study_tables import table

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #1c1c1c; }
table { border-collapse: collapse; margin: 1rem 0; font-size: 13px; }
th, td { padding: .2rem .6rem; border-bottom: 1px solid #ddd; text-align: right; }
th:first-child, td:first-child { text-align: left; } figure { margin: 1.5rem 0; } svg { max-width: 100%; height: auto; } figcaption { color: #555; }
"""
_ABOUT = """L3D finds directions in parameter space from per-sample gradients alone. Targets are those that were set for this project.
Published values are those of the source, whose gradients of TMS and TMCS differ ((2 f - f_r) J instead of 2 (f - f_r) J) and whose "r2"
is r. A circuit of an autoencoder is compared as a direction of movement, and as weights: `unmerge_lab.circuits.matching` says why these
are two things."""

_PROPERTIES = """Measured, as means over models. Features a dimension: features that the model answers to over the width of its narrowest
layer. Overlap: mean cosine of two circuits' squared gradients, 0 where they share no parameter. Rank: of a circuit's map from its inputs to
its outputs at one sample. Left when off: mean |own output| when a subnetwork is moved to where that is least, over what it was."""


@dataclass(frozen=True)
class Section:
    """A heading with text, tables and figures (titles of figures)."""

    title: str
    text: str = ""
    tables: tuple[Table, ...] = ()
    figures: tuple[str, ...] = ()


def write_circuits_page(runs: Path, out: Path | None, page: Path | None) -> None:
    """Write the results of the experiments below ``runs``.

    Args:
        runs: a folder of experiments.
        out: an HTML file, self-contained.
        page: a Markdown file; its figures go into ``images`` beside it.
    """
    records = CircuitRecords.read(runs)
    if page:
        figures = draw_figures(records, page.parent / "images")
        write_text(page, _markdown(_sections(records, list(figures)), figures))
    if out:
        with TemporaryDirectory() as scratch:
            figures = draw_figures(records, Path(scratch))
            write_text(out, _html(_sections(records, list(figures)), figures))


def _sections(records: CircuitRecords, figures: list[str]) -> list[Section]:
    def drawn(word: str) -> tuple[str, ...]:
        return tuple(title for title in figures if title.startswith(word))

    toys = records.toys
    sections = [Section("What was asked for", _ABOUT, (tables.verdicts(records),))]
    sections.append(Section("The models", _PROPERTIES, (tables.properties(records),)))
    for kind, own in toys.items():
        discarded, errors = own.toy["discarded"], own.toy["errors"]
        text = (
            f"{len(own.toy['seeds'])} models, squared error over the target's mean square {min(errors):.4f} to {max(errors):.4f}; "
            f"{len(discarded)} others were discarded on the way (a feature not represented, or not trained to the error asked for)."
        )
        extra: tuple[Table, ...] = ()
        if kind in ("tms", "parallel"):
            extra = (tables.matches(own),)
        elif kind == "tmcs":
            extra = (tables.coefficients(own),)
        elif kind.startswith("high-rank"):
            extra = (tables.groups(own),)
        shown = drawn(own.toy["title"]) + (drawn("TMCS: ") if kind == "tmcs" else ())
        sections.append(Section(own.toy["title"], text, (tables.reconstructions(own, kind), *extra), shown))
        if own.baselines:
            sections.append(Section("Simpler methods and APD, on TMS", "Means over models.", (tables.baselines(own.baselines),)))
    if records.frontier:
        text = (
            "No decomposition into so many directions is below the floor, whatever its rank and with every coefficient kept. Error: squared "
            "error over the target's mean square; means over models."
        )
        sections.append(Section("X -> X^2: the floor against training", text, (tables.frontier(records.frontier),)))
    sections.append(Section("Number and rank", "", (), drawn("Reconstruction")))
    text = (
        "One direction at a time, scaled until its own outputs move by half of their range; medians over circuits. Not additive: how far two moves "
        "at once are from the sum of each. Left when off: mean |own output| when a direction is moved to where that is least, over what it was."
    )
    sections.append(Section("Interventions", text, (tables.interventions(records),), drawn("Selectivity")))
    if records.language:
        sections += _language(records, drawn("Skills"))
    environments = [own.toy["environment"] for own in toys.values()] + ([records.language["environment"]] if records.language else [])
    versions = {"python": environments[0]["python"], **environments[0]["versions"]}
    sections.append(Section("Versions", "`" + json.dumps(versions) + "`"))
    return sections


def _language(records: CircuitRecords, figures: tuple[str, ...]) -> list[Section]:
    assert records.language is not None
    record, sections = records.language, []
    settings = record["settings"]
    for kind in ("contrastive", "random"):
        if kind not in record:
            continue
        own = record[kind]
        rows = own["tasks"]
        unlocked = [row for row in rows if row["after"] >= 0.8]
        alone = [row for row in unlocked if row["largest_rise"][1] <= 0.1]
        gone = [row for row in rows if row.get("adapter", 0) and row["adapter"] >= 0.8 and row["adapter_without"] <= 0.1]
        twice = [row for row in rows if row.get("adapter", 0) and row["adapter"] >= 0.8 and row.get("adapter_without_twice", 1.0) <= 0.1]
        doubled = f", {len(twice)} at twice the step" if any("adapter_without_twice" in row for row in rows) else ""
        with_adapter = [row for row in rows if row["containment"] is not None]
        first = sum(row["rank_among_adapters"] == 1 for row in with_adapter)
        mean_own, mean_others = (fmean(row[key] for row in with_adapter) for key in ("containment", "others"))
        text = (
            f"Block {record['block']} of the zoo's base, {settings['subnetworks']} subnetworks of rank {settings['rank']}, KL of the next token, "
            f"{kind} references; loss {own['loss']:.3f} after {settings['epochs']} epochs, {own['seconds']:.0f} s. "
            f"A task's own subnetwork, added to the base, brings {len(unlocked)} of {len(rows)} skills to .80 or more (the base has "
            f"{median(row['before'] for row in rows):.2f} in the median), {len(alone)} of them without another task rising by more than .10. "
            f"Subtracted from the skill's adapter (through `ablate`) it takes {len(gone)} of {len(with_adapter)} skills away "
            f"at the same step{doubled}. "
            f"Containment in the skill's adapter {mean_own:.3f} in the mean, in the others {mean_others:.3f}; the skill's adapter "
            f"contains it most in {first} of {len(with_adapter)}."
        )
        made = (tables.skills(rows), tables.tuned(own["tuned"]), tables.named(own["subnetworks"]))
        sections.append(Section(f"The zoo's base, {kind} references", text, made, figures if kind == "contrastive" else ()))
        if kind == "contrastive":
            sections.append(Section("Subnetworks through `verify`", _verified(record["verified"]), (tables.verified(record["verified"]),)))
    return sections


def _verified(rows: list[Record]) -> str:
    ones = [(row, one) for row in rows for one in row["components"]]
    why = "; ".join(f"{one['removed']} in {row['target']}: {one['because'][-1]}" for row, one in ones if one["verdict"] != "verified")
    return (
        "The dictionary is the subnetworks, written as adapters. A sum of subnetworks that each unlock their skill alone is decomposed and "
        "its components taken out; and from adapters of the zoo, trained from examples, the subnetwork of the same skill, found without them. "
        f"{sum(one['verdict'] == 'verified' for _, one in ones)} of {len(ones)} are verified." + (f" Not verified: {why}." if why else "")
    )


def _markdown(sections: list[Section], figures: dict[str, Path]) -> str:
    parts = ["# Circuits, measured", "Made by `make circuits`, from its records alone."]
    for section in sections:
        parts += [f"## {section.title}", section.text]
        parts += [table(*each) for each in section.tables]
        parts += [f"![{title}](images/{figures[title].name}.png)" for title in section.figures]
    return "\n\n".join(filter(None, parts)) + "\n"


def _html(sections: list[Section], figures: dict[str, Path]) -> str:
    body = ["<h1>Circuits, measured</h1>"]
    for section in sections:
        body += [f"<h2>{html.escape(section.title)}</h2>", f"<p>{_inline(section.text)}</p>"]
        body += [_html_table(*each) for each in section.tables]
        for title in section.figures:
            drawing = figures[title].with_name(figures[title].name + ".svg").read_text(encoding="utf-8")
            body.append(f"<figure>{drawing[drawing.index('<svg') :]}<figcaption>{html.escape(title)}</figcaption></figure>")
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Circuits, measured</title><style>{_STYLE}</style>'
    return f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head><body>\n' + "\n".join(body) + "\n</body></html>\n"


def _html_table(head: list[str], rows: list[list[str]]) -> str:
    lines = ["<tr>" + "".join(f"<th>{_inline(cell)}</th>" for cell in head) + "</tr>"]
    lines += ["<tr>" + "".join(f"<td>{_inline(cell)}</td>" for cell in row) + "</tr>" for row in rows]
    return "<table>" + "\n".join(lines) + "</table>"


def _inline(text: str) -> str:
    """Text with code between backticks."""
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", html.escape(text.replace("\\|", "|")))
