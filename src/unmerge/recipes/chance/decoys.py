"""How much a wrong recipe would explain: one atom swapped for an absent one, everything else as found.

Both shares count the same kind of entries: those where few of the values that a target's dtype has between the lowest and
the highest sum are sums. Elsewhere 2^n sums hit every value, and say nothing.
"""

from __future__ import annotations

import torch

from unmerge.recipes.case import Case
from unmerge.recipes.chance.drawn import Drawn
from unmerge.recipes.chance.masks import sums_of
from unmerge.recipes.chance.reading import changes_of, share_explained, telling
from unmerge.recipes.swapped import swapped

#: entries of a tensor that decoys are tried on
_TOLD = 2_000


def decoys(case: Case, found: Drawn) -> dict[str, float]:
    """The share of telling entries explained by every decoy, "present -> absent"."""
    tensors = [tensor for tensor in case.quick if tensor in found.acting] or list(found.acting)[:1]
    return {name: _explained(case, atoms, found, tensors) for name, atoms in swapped(found.atoms, case.inputs.dictionary.names).items()}


def _explained(case: Case, atoms: tuple[str, ...], found: Drawn, tensors: list[str]) -> float:
    hits, told = 0.0, 0
    for tensor in tensors:
        acting = found.acting[tensor]
        tells = telling(case, tensor, sums_of(changes_of(case, atoms, tensor).double(), acting.law))
        places = torch.nonzero(tells & (case.wanted(tensor) != case.before(tensor)).reshape(-1))[:, 0]
        hits += share_explained(case, atoms, tensor, acting, places[:_TOLD]) * len(places[:_TOLD])
        told += len(places[:_TOLD])
    return hits / max(told, 1)
