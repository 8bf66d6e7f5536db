"""How much a wrong recipe would explain: one atom swapped for an absent one, everything else as found.

Both shares count the same kind of entries: those where few of the values that a target's dtype has between the lowest and
the highest sum are sums. Elsewhere 2^n sums hit every value, and say nothing.
"""

from __future__ import annotations

from unmerge.recipes.case import Case
from unmerge.recipes.drawn import Drawn
from unmerge.recipes.masks import posterior
from unmerge.recipes.reading import PRECISION, read_off, sample_of

#: absent atoms that are tried in each place
_ABSENT = 2


def decoys(case: Case, found: Drawn) -> dict[str, float]:
    """The share of telling entries explained by every decoy, "present -> absent"."""
    absent = [atom.name for atom in case.inputs.dictionary.atoms if atom.name not in found.atoms][:_ABSENT]
    tensors = [tensor for tensor in case.quick if tensor in found.acting] or list(found.acting)[:1]
    shares = {}
    for place, present in enumerate(found.atoms):
        for other in absent:
            swapped = tuple(other if position == place else atom for position, atom in enumerate(found.atoms))
            shares[f"{present} -> {other}"] = _explained(case, swapped, found, tensors)
    return shares


def _explained(case: Case, atoms: tuple[str, ...], found: Drawn, tensors: list[str]) -> float:
    hits = told = 0
    for tensor in tensors:
        acting = found.acting[tensor]
        reading = read_off(case, atoms, tensor, acting, posterior(sample_of(case, atoms, tensor), acting.law, PRECISION[case.dtype]))
        counted = reading.telling & reading.changed
        hits += int((counted & reading.explained).sum())
        told += int(counted.sum())
    return hits / max(told, 1)
