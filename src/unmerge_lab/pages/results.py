"""Write docs/results.md: the zoo and the demo in numbers, from the package's zoo and the demo's records.

make results
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from unmerge.core.records import read_json
from unmerge.decomposition import open_base, open_dictionary
from unmerge.vectors import gram
from unmerge_lab import embedded_zoo
from unmerge_lab.report.study_tables import table
from unmerge_lab.studies.demo import DemoResult
from unmerge_lab.zoo.build import ZOO_RECORD, ZooRecord
from unmerge_lab.zoo.embedded import BASE, KNOWN, UNKNOWN
from unmerge_lab.zoo.tasks import GENERAL, TASKS


def main() -> None:
    """Read the records, measure the zoo's task vectors, write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--demo", type=Path, default=Path("runs/demo"))
    parser.add_argument("--out", type=Path, default=Path("docs/results.md"))
    arguments = parser.parse_args()
    demo = DemoResult.model_validate(read_json(arguments.demo / "demo.json", "the demo's record; run 'make demo'"))
    sections = [_zoo(), _demo(demo), _times(demo), _made(demo)]
    arguments.out.write_text("# Results\n\nMade by `make results`.\n\n" + "\n\n".join(sections) + "\n", encoding="utf-8")


def _zoo() -> str:
    zoo = ZooRecord.model_validate(read_json(embedded_zoo() / ZOO_RECORD, "the zoo's record"))
    base = open_base(embedded_zoo() / BASE)
    atoms = open_dictionary([embedded_zoo() / KNOWN, embedded_zoo() / UNKNOWN], base).atoms
    products = gram(atoms, atoms[0]).gram.sum(0)
    norms = np.sqrt(np.diag(products))
    cosines = products / np.outer(norms, norms)
    off = np.abs(cosines[~np.eye(len(atoms), dtype=bool)])
    touched = atoms[0].shapes
    weight = np.sqrt(sum(float((base.read(tensor).double() ** 2).sum()) for tensor in touched))
    size = sum(file.stat().st_size for file in embedded_zoo().rglob("*") if file.is_file()) / 1e6
    by_name = {atom.name: place for place, atom in enumerate(atoms)}
    rows = []
    for task in TASKS:
        group = "known" if task.name in zoo.known else "unknown" if task.name in zoo.unknown else "not shipped"
        place = by_name.get(task.name)
        others = np.abs(np.delete(cosines[place], place)).max() if place is not None else None
        rows.append(
            [
                task.name,
                task.category,
                group,
                f"{zoo.base[task.name]:.3f}",
                f"{zoo.adapters[task.name]:.3f}",
                f"{norms[place] / weight:.4f}" if place is not None else "",
                f"{others:.3f}" if others is not None else "",
            ]
        )
    learned = sum(score >= 0.95 for score in zoo.adapters.values())
    general = ", ".join(f"{task.name} {zoo.base[task.name]:.3f}" for task in GENERAL)
    return "\n\n".join(
        [
            "## The zoo",
            (
                f"Seed {zoo.seed}; {size:.1f} MB in all. Exact match on held-out items: "
                f"{learned} of {len(TASKS)} adapters reach .95 on their own task; "
                f"the base on its general tasks: {general}."
            ),
            (
                f"Task vectors: norm relative to the weights they change {norms.min() / weight:.4f} to {norms.max() / weight:.4f}; "
                f"cosine between two of them {off.mean():.4f} in the mean, {off.max():.4f} at most (absolute values)."
            ),
            table(["task", "category", "group", "base", "its adapter", "relative norm", "largest cosine"], rows),
        ]
    )


def _demo(demo: DemoResult) -> str:
    matrix = demo.matrix
    found = {component.name: component for component in demo.decomposition.components}
    recipe = [[name, f"{weight:.2f}", f"{found[name].coefficient:.4f}" if name in found else "not found"] for name, weight in demo.weights.items()]
    before = matrix.rows[0].scores
    rows = []
    for row in matrix.rows[1:]:
        own = matrix.task_of[row.removed or ""]
        task, fall = matrix.largest_fall(row)
        rows.append(
            [row.removed or "", f"{before[own]:.3f}", f"{matrix.left(row):.3f}", f"{fall:.3f} ({task})", "yes" if matrix.specific(row) else "no"]
        )
    whole = [[task, *(f"{row.scores[task]:.2f}" for row in matrix.rows)] for task in matrix.tasks]
    return "\n\n".join(
        [
            "## The demo",
            (
                f"task_arithmetic in bfloat16 of {len(demo.weights)} known adapters and {len(demo.unknown)} unknown ones; decomposed by "
                f"the {demo.decomposition.method} over {len(demo.decomposition.dictionary)} atoms, which finds "
                f"{demo.decomposition.unexplained.components} unknown components; "
                f"reconstruction error {demo.decomposition.reconstruction_error:.4f}; atoms named that are not in the target: "
                f"{sum(name not in demo.weights for name in found)}."
            ),
            table(["component", "weight in the recipe", "coefficient found"], recipe),
            "Each component subtracted in turn (at most .10 of its skill may be left, no other skill may fall by more than .10):",
            table(["removed", "its skill before", "after", "largest other fall", "specific"], rows),
            "The whole matrix, exact match by what was removed:",
            table(["task", *(row.removed or "nothing" for row in matrix.rows)], whole),
        ]
    )


def _times(demo: DemoResult) -> str:
    rows = [[phase, f"{seconds:.1f}"] for phase, seconds in demo.seconds.items()]
    return "## Time of each phase of the demo\n\n" + table(["phase", "seconds"], rows)


def _made(demo: DemoResult) -> str:
    return "## Versions\n\n```json\n" + json.dumps({"python": demo.environment.python, **demo.environment.versions}, indent=2) + "\n```"


if __name__ == "__main__":
    main()
