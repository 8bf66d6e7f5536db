"""What the families are like: cosines of two members by their relation, and spectra; reads runs/families, writes runs/families.json.

python -m unmerge_lab.benchmarks.families_summary [FAMILIES]
"""

from __future__ import annotations

import argparse
import itertools
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unmerge.checkpoints import Adapter
from unmerge.core.records import write_json
from unmerge.vectors import Held, LowRank, gram
from unmerge_lab.studies.families import read_manifests, relation
from unmerge_lab.studies.families.design import RELATIONS
from unmerge_lab.studies.families.manifest import adapter_folder

QUANTILES = (0.0, 0.25, 0.5, 0.75, 1.0)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("families", type=Path, nargs="?", default=Path("runs/families"))
    parser.add_argument("--json", type=Path, default=Path("runs/families.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    figures = summary(arguments.families)
    for relative, found in figures["cosines"].items():
        print(f"{relative:<14} {found['pairs']:>6} pairs  |cosine| " + " ".join(f"{value:.3f}" for value in found["quantiles"]))
    print("leading direction " + " ".join(f"{value:.2f}" for value in figures["leading direction"]))
    print("||dW|| " + " ".join(f"{value:.4f}" for value in figures["norm"]))
    write_json(arguments.json, figures)


def summary(families: Path) -> dict[str, Any]:
    """Quantiles (least, quarters, largest) within each dictionary: cosines by relation, the leading direction's share, norms."""
    cosines: dict[str, list[float]] = defaultdict(list)
    leading, norms, losses = [], [], []
    manifests = read_manifests(families)
    for manifest in manifests:
        atoms = [Adapter.open(adapter_folder(families, member)) for member in manifest.members]
        products = gram(atoms, Held("none", {})).gram.sum(0)
        lengths = np.sqrt(np.diag(products))
        norms += lengths.tolist()
        losses += [member.loss for member in manifest.members]
        for one, other in itertools.combinations(range(len(atoms)), 2):
            kind = relation(manifest.members[one], manifest.members[other])
            cosines[kind].append(abs(float(products[one, other]) / float(lengths[one] * lengths[other])))
        leading += [_leading(atom) for atom in atoms]
    return {
        "dictionaries": len(manifests),
        "adapters": len(leading),
        "cosines": {
            kind: {"pairs": len(cosines[kind]), "quantiles": np.quantile(cosines[kind], QUANTILES).tolist()} for kind in RELATIONS if cosines[kind]
        },
        "leading direction": np.quantile(leading, QUANTILES).tolist(),
        "norm": np.quantile(norms, QUANTILES).tolist(),
        "loss": np.quantile(losses, QUANTILES).tolist(),
    }


def _leading(atom: Adapter) -> float:
    """Share of an adapter's squared norm in the leading direction of each tensor."""
    first = whole = 0.0
    for tensor in atom.shapes:
        delta = atom.delta(tensor)
        assert isinstance(delta, LowRank)
        _, values, _ = delta.svd()
        first += float(values[0] ** 2)
        whole += float(values.square().sum())
    return first / whole


if __name__ == "__main__":
    main()
