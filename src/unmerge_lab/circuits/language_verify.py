"""Subnetworks through ``verify``, as any other direction: named in a target, taken out, measured, judged.

Two questions, two kinds of target, one dictionary: the subnetworks that were written as adapters.

- *Planted*: the sum of a few subnetworks. Does the decomposition name these and no other, and is each one's skill gone without it?
- *The zoo's adapters*: trained from examples, without any knowledge of the subnetworks. Is an adapter's skill gone when the
  subnetwork of that skill, found without the adapter, is subtracted from it?
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from unmerge.checkpoints import Adapter
from unmerge.checkpoints.write_adapter import write_adapter
from unmerge.circuits.decompose import Watch
from unmerge.decomposition import Dictionary, decompose, open_base
from unmerge.decomposition.dictionary import Vector
from unmerge.vectors import LowRank
from unmerge.verification.run import Request, verify
from unmerge_lab import embedded_zoo
from unmerge_lab.zoo.embedded import BASE, BASE_NAME, zoo_tasks

#: items of every task
ITEMS = 32


def verify_subnetworks(
    target: Path, subnetworks: Sequence[Path], chosen: Mapping[str, float], seed: int, watch: Watch | None = None
) -> dict[str, Any]:
    """Decompose a target over subnetworks, and take out what is named, or what is chosen.

    Args:
        target: an adapter.
        subnetworks: adapters named for their skill.
        chosen: to remove, with coefficients; empty for what the decomposition names.
        seed: of the controls.
        watch: told of the conditions.

    Returns:
        ``named``: component and coefficient; ``components``: one row for each that was taken out.
    """
    base = open_base(embedded_zoo() / BASE)
    atoms: tuple[Vector, ...] = tuple(Adapter.open(folder, base) for folder in subnetworks)
    vector, dictionary, tasks = Adapter.open(target, base), Dictionary(atoms, ()), zoo_tasks()
    found = decompose(vector, dictionary, base)
    result = verify(Request(vector, base, dictionary, found, tasks, chosen, seed), tasks.suite(limit=ITEMS), watch=watch)
    rows = [
        {
            "removed": one.removed,
            "coefficient": one.coefficient,
            "before": one.before,
            "after": one.after,
            "others": one.mean_absolute_change,
            "general": one.general_change,
            "controls_verified": sum(control.verified for control in one.controls),
            "controls": len(one.controls),
            "verdict": one.verdict,
            "because": one.because,
        }
        for one in result.components
    ]
    return {"target": target.name, "named": {one.name: one.coefficient for one in found.components}, "components": rows}


def write_sum(folder: Path, parts: Sequence[Path]) -> None:
    """The sum of some adapters, as an adapter."""
    opened = [Adapter.open(part) for part in parts]
    total = {}
    for tensor in opened[0].shapes:
        deltas = [adapter.delta(tensor) for adapter in opened]
        factors = [delta for delta in deltas if isinstance(delta, LowRank)]
        total[tensor] = LowRank(torch.cat([delta.b for delta in factors], 1), torch.cat([delta.a for delta in factors], 0))
    write_adapter(folder, total, BASE_NAME)
