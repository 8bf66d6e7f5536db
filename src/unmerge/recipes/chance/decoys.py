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
from unmerge.recipes.recipe import BASE

#: absent atoms that are tried in each place, and entries of a tensor that they are tried on
_ABSENT, _TOLD = 2, 2_000


def decoys(case: Case, found: Drawn) -> dict[str, float]:
    """The share of telling entries explained by every decoy, "present -> absent"."""
    tensors = [tensor for tensor in case.quick if tensor in found.acting] or list(found.acting)[:1]
    return {name: _explained(case, atoms, found, tensors) for name, atoms in swapped(case, found.atoms).items()}


def swapped(case: Case, atoms: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """Sets of atoms with one swapped for an absent one, "present -> absent"."""
    absent = [atom.name for atom in case.inputs.dictionary.atoms if atom.name not in atoms][:_ABSENT]
    return {f"{present} -> {other}": (*atoms[:place], other, *atoms[place + 1 :]) for place, present in enumerate(atoms) for other in absent}


def _explained(case: Case, atoms: tuple[str, ...], found: Drawn, tensors: list[str]) -> float:
    hits, told = 0.0, 0
    for tensor in tensors:
        acting = found.acting[tensor]
        tells = telling(case, tensor, sums_of(changes_of(case, atoms, tensor).double(), acting.law))
        places = torch.nonzero(tells & (case.wanted(tensor) != case.read(BASE, tensor)).reshape(-1))[:, 0]
        hits += share_explained(case, atoms, tensor, acting, places[:_TOLD]) * len(places[:_TOLD])
        told += len(places[:_TOLD])
    return hits / max(told, 1)
