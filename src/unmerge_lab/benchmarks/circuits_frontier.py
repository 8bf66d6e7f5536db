"""How low a reconstruction of X -> X^2 can be, against how well the model is trained.

For several lengths of training, each with its own learning-rate schedule to the end: the model's error, and the floor of its
gradients (``unmerge_lab.circuits.measure.floor``), below which no decomposition into so many directions gets.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from statistics import fmean

from unmerge.core.records import environment, write_json
from unmerge_lab.circuits.measure import floor
from unmerge_lab.circuits.toys import toy_named
from unmerge_lab.circuits.train_toys import train

KINDS, STEPS, NUMBERS, SEEDS, SAMPLES = ("square", "square-5"), (200, 350, 500, 700, 1000, 3000, 10_000), (3, 5, 10, 15), (0, 1, 2), 400


def main() -> None:
    """Train, take floors, write the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True, help="the record to write")
    rows = []
    out = parser.parse_args().json
    for kind in KINDS:
        for steps in STEPS:
            trained = train(replace(toy_named(kind), steps=steps), list(SEEDS))
            x = trained.inputs(SAMPLES)
            floors = {str(count): fmean(floor(trained.landscape, x, count)) for count in NUMBERS}
            rows.append({"toy": kind, "title": trained.toy.title, "steps": steps, "error": float(trained.errors.mean()), "floors": floors})
    write_json(out, {"rows": rows, "seeds": SEEDS, "environment": environment().model_dump()})


if __name__ == "__main__":
    main()
