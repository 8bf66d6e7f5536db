"""Build the harder zoo and print how alike its adapters are.

python -m unmerge_lab.benchmarks.harder_zoo [--seed 0] [--out runs/harder-zoo]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from unmerge.checkpoints import Adapter
from unmerge.vectors import Held, gram
from unmerge_lab.studies.families.harder import build_harder_zoo
from unmerge_lab.zoo.embedded import KNOWN, UNKNOWN

QUANTILES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)


def main() -> None:
    """Train, then print cosines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/harder-zoo"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # the models are small
    if not arguments.out.exists():
        build_harder_zoo(arguments.out, arguments.seed, lambda name: print(name, flush=True))
    folders = [folder for half in (KNOWN, UNKNOWN) for folder in sorted((arguments.out / half).iterdir())]
    products = gram([Adapter.open(folder) for folder in folders], Held("none", {})).gram.sum(0)
    lengths = np.sqrt(np.diag(products))
    cosines = np.abs(products / np.outer(lengths, lengths))[np.triu_indices(len(folders), 1)]
    print(
        "|cosine|: quantiles 0, .1, .25, .5, .75, .9, 1: "
        + " ".join(f"{value:.3f}" for value in np.quantile(cosines, (0, 0.1, 0.25, 0.5, 0.75, 0.9, 1)))
    )


if __name__ == "__main__":
    main()
