"""A study as a page of the documentation, and as a table on the terminal: made from its records alone."""

from __future__ import annotations

import json
from pathlib import Path

from rich.console import Console
from rich.table import Table

from unmerge.core.records import read_json, write_text
from unmerge_lab.report import published
from unmerge_lab.report import study_tables as tables
from unmerge_lab.report.study_figures import plot_components, plot_errors, plot_spaces
from unmerge_lab.report.study_record import RECORD, SUMMARY, StudyRecord, Summary, read_rows
from unmerge_lab.report.study_tables import Summaries, number

#: the space that the published study looked in, and the one that the first tables are of where there is a choice
PUBLISHED_SPACE, FIRST_SPACE = "compressed", "exact"

_MADE = (
    "Made by `unmerge study STUDY.yml --report`, from its records alone; `make study` does it for `studies/zoo.yml`, "
    "`make second-zoo` for another zoo, `make harder-zoo` for one whose adapters are [relatives](families.md)."
)
_CONVENTIONS = """
- A target's components are drawn from its seed, its group, its merge and its dtype; so are weights that differ ({least} to {most}, in
  hundredths; equal ones are {equal}). How many components, and whether their weights are equal, goes round from target to target.
- The dictionary holds the known adapters. The truth of a target is those of its components that are in the dictionary.
- A float32 target is merged from, and decomposed against, a float32 copy of the base; a bfloat16 one against the base itself.
- Precision: the share of named components that are right; naming nothing counts 1 where there is nothing to name, else 0. Recall: the share
  of the truth that is named; it is not defined where there is nothing to find. Perfect: nothing wrong, nothing missed. A component that is
  reported with atoms it cannot be told from counts as right when one of them is.
- Exact: the certificate says of a component whether it is the very atom or a relative of it (another checkpoint or seed of its training);
  these are precision and recall of the claims that it is the very atom. Other methods do not tell.
- Error: ||t - t_hat|| / ||t|| over all weights, whatever space the method looked in; beside it 1 - cos², which the published study calls
  reconstruction error.
- Effective: exp of the entropy of the contributions |c_i| ||v_i||, over all atoms.
- Coefficients: |c - w| / |w| of the known component that is furthest off; w is the coefficient that acted (task_arithmetic, dare_linear: the
  weight as mergekit rounds it to the merge's dtype; linear: the weight over the sum of weights; adapters: the weight). Median over targets,
  and the largest. Not defined under ties and dare_ties, where it differs from entry to entry.
- Seconds: of a decomposition with one thread, reading included, beside {others} other processes. MiB: by how much the process's resident memory
  grew at its peak.
"""
_PUBLISHED = """
Published: Qwen2.5-7B-Instruct, 15 adapters of rank 32 on attention alone, 8 in the dictionary, 24 merges a group, on about 0.01% of the weights.
Ours: the zoo of this package. The layout is the same, the data are not: a number that is better here is better on an easier or a harder
problem, not on the same one. In brackets the published number of the same method, or, where it has none, of the published method with
the highest F1 in that place, named. *Better*: at two decimals, neither precision nor recall is lower and one is higher; *equal*: both the same;
*worse*: neither is higher; *split*: one is higher, the other lower.
"""
_ALIGNMENT = """
The atoms nearest to each target (as many as it has components; nearest by what the method ranks by: contribution; the certificate's containment,
or 1 - p where it has none) against what is in it: for each atom the highest similarity to a component, averaged. `tfidf`: cosine between the
descriptions in the adapters' training records, which open with the category; `category`: the same category or not; `sentences`, where a model
is given: cosine between sentence embeddings. Random atoms instead: 2,000 permutations; interval of the mean: bootstrap over targets. A method that
ranks all atoms alike gets what random atoms get.
"""


def show_study(folder: Path, console: Console | None = None) -> None:
    """Every method over all merges, a row a method and group."""
    console = console or Console(markup=False, emoji=False)
    found = Summaries(read_rows(folder / SUMMARY, Summary))
    space = _first_space(found)
    result = Table(title=f"all {found.overall}, space {space}", title_justify="left", box=None, padding=(0, 1))
    for title in ("group", "method", "precision", "recall", "perfect", "named", "error"):
        result.add_column(title, justify="left" if title in ("group", "method") else "right", no_wrap=True)
    for group in found.groups:
        for method in found.methods:
            if row := found.get(group, found.overall, space, method):
                measured = (row.precision, row.recall, row.perfect, row.sparsity)
                result.add_row(group, method, *(number(value, 2) for value in measured), number(row.reconstruction_error, 3))
        result.add_section()
    console.print(result)


def write_study_page(folder: Path, page: Path) -> None:
    """Write a study's page, and its figures into ``images`` beside it.

    Args:
        folder: of the study, with its records.
        page: the Markdown file to write.
    """
    record = StudyRecord.model_validate(read_json(folder / RECORD, "a study's record"))
    found = Summaries(read_rows(folder / SUMMARY, Summary))
    space = _first_space(found)
    images, name = page.parent / "images", page.stem
    pictures = {
        "Components found": plot_components(found, space, images / f"{name}-components"),
        "Reconstruction error": plot_errors(found, space, images / f"{name}-errors"),
        "Perfect matches by space": plot_spaces(found, images / f"{name}-spaces"),
    }
    sections = [
        f"# {name.replace('-', ' ').capitalize()}",
        _MADE,
        _design(record, found),
    ]
    sections += ["## At a glance", *(f"![{title}](images/{files[0].name})" for title, files in pictures.items())]
    for group in found.groups:
        sections += [f"## {group.capitalize()} group, space {space}", tables.overview(found, group, space)]
    theirs = PUBLISHED_SPACE if PUBLISHED_SPACE in found.spaces else space
    sections += ["## Beside the published study", _PUBLISHED.strip()]
    for group in found.groups:
        if group != "unknown":
            for where in dict.fromkeys((space, theirs)):
                sections += [f"### Precision/recall, {group} group, space {where}", tables.precision_recall(found, group, where)]
    sections += [f"### 1 - cos², space {theirs}; in brackets the published nnls", tables.cosine_errors(found, theirs)]
    sections += ["### Seconds a decomposition", tables.seconds(found)]
    if "unknown" in found.groups:
        named = f"{published.NAMED_UNKNOWN} of {published.ATOMS} by nnls"
        sections += ["## Where the right answer is nothing", f"Atoms named in the unknown group; the published study named {named}."]
        for where in dict.fromkeys((space, theirs)):
            sections += [f"### Space {where}", tables.unknown(found, where)]
        sections += ["## Semantic alignment", _ALIGNMENT.strip(), tables.alignment(record.alignment, space)]
    sections += [f"## Coefficients that acted, space {space}", "The largest relative error.", tables.coefficients(found, space)]
    sections += [f"## float32 and bfloat16, space {space}", tables.dtypes(found, space)]
    sections += ["## Spaces", "Precision/recall over all merges; in the unknown group, atoms named."]
    for group in found.groups:
        sections += [f"### {group.capitalize()} group", tables.spaces(found, group)]
    versions = {"python": record.environment.python, **record.environment.versions}
    sections += ["## Versions", "```json\n" + json.dumps(versions, indent=2) + "\n```"]
    write_text(page, "\n\n".join(sections) + "\n")


def _first_space(found: Summaries) -> str:
    return FIRST_SPACE if FIRST_SPACE in found.spaces else found.spaces[0]


def _design(record: StudyRecord, found: Summaries) -> str:
    """What was done, in numbers."""
    design = {setting: Path(value).name if setting == "zoo" else value for setting, value in record.design.items()}
    counts = {}
    for group in found.groups:
        sizes = [
            sum(row.targets for merge in sort if (row := found.get(group, merge, found.spaces[0], found.methods[0])))
            for sort in (found.merges, found.kinds)
        ]
        counts[group] = f"{group}: {sizes[0]} merges, {sizes[1]} adapters"
    components, seeds = (", ".join(map(str, design[setting])) for setting in ("components", "seeds"))
    done = (
        f"{record.targets} targets ({'; '.join(counts.values())}) of {components} components, seeds {seeds}; {len(record.dictionary)} atoms, "
        f"{len(found.methods)} methods, {len(found.spaces)} spaces: {record.cells} decompositions."
    )
    conventions = _CONVENTIONS.strip().format(others=record.jobs - 1, **record.drawn)
    lines = [done, "```json\n" + json.dumps(design, indent=2) + "\n```", conventions, _time(record)]
    return "## Design\n\n" + "\n\n".join(lines)


def _time(record: StudyRecord) -> str:
    earlier = f", after earlier runs that had finished {record.resumed} of the decompositions" if record.resumed else ""
    processes = "process" if record.jobs == 1 else "processes"
    return f"It took {record.seconds / 60:.1f} minutes in {record.jobs} {processes} of one thread{earlier}."
