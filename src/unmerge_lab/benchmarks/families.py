"""Real-like dictionaries of adapters, each really trained on the embedded zoo's base; what calibration and the study of families measure on.

    python -m unmerge_lab.benchmarks.families [--count 20] [--part 0/2] [--out runs/families]

A dictionary is a folder: ``d03/adapters/NAME`` are ordinary PEFT adapters, ``d03/manifest.json`` says of each what it was trained on, from
which seed, with which settings, and which run it belongs to (``unmerge_lab.studies.families``). Dictionaries that are there stay.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch

from unmerge_lab import embedded_zoo
from unmerge_lab.studies.families import draw_dictionary, train_dictionary
from unmerge_lab.studies.families.manifest import MANIFEST
from unmerge_lab.zoo.embedded import BASE, BASE_NAME


def main() -> None:
    """Train the dictionaries that are missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=20, help="of dictionaries")
    parser.add_argument("--part", default="0/1", help="every N-th dictionary from the K-th on, as K/N: one process of several")
    parser.add_argument("--out", type=Path, default=Path("runs/families"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # the models are small
    first, step = map(int, arguments.part.split("/"))
    for number in range(first, arguments.count, step):
        name = f"d{number:02d}"
        if (arguments.out / name / MANIFEST).exists():
            continue
        started = time.monotonic()
        manifest = train_dictionary(name, draw_dictionary(number), embedded_zoo() / BASE, BASE_NAME, arguments.out / name)
        print(f"{name}: {len(manifest.members)} adapters in {time.monotonic() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main()
