"""How much a wrong recipe would explain: one atom swapped for an absent one, everything else as found."""

from __future__ import annotations

from unmerge.recipes.case import Case
from unmerge.recipes.drawn import Drawn, explained

#: absent atoms that are tried in each place
_ABSENT = 2


def decoys(case: Case, found: Drawn) -> dict[str, float]:
    """The share explained by every decoy, "present -> absent"."""
    absent = [atom.name for atom in case.inputs.dictionary.atoms if atom.name not in found.atoms][:_ABSENT]
    shares = {}
    for place, present in enumerate(found.atoms):
        for other in absent:
            swapped = tuple(other if position == place else atom for position, atom in enumerate(found.atoms))
            shares[f"{present} -> {other}"] = explained(case, swapped, found.mixtures)
    return shares
