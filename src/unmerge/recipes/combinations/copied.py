"""One adapter as it is, or with another alpha: the factors are the atom's own, to the last bit, and only the scale may differ.

Factors that were themselves multiplied are a combination of one adapter, which PEFT treats as ``linear``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from unmerge.recipes.combinations.case import AdapterCase
from unmerge.recipes.factors import Pair


@dataclass(frozen=True)
class Copied:
    """An atom with its scale multiplied by a number."""

    atom: str
    weight: float
    method = "adapter"
    free = False

    @property
    def parameters(self) -> dict[str, Any]:
        """As in the record."""
        return {"models": {self.atom: {"weight": self.weight}}}

    def pair(self, case: AdapterCase, tensor: str) -> Pair:
        """The atom's factors."""
        pair, wanted = case.pair(self.atom, tensor), case.wanted(tensor)
        if pair is None:
            return Pair(torch.zeros_like(wanted.b), torch.zeros_like(wanted.a), wanted.scale)
        return Pair(pair.b.to(wanted.b.dtype), pair.a.to(wanted.a.dtype), pair.scale * self.weight)


def candidates(case: AdapterCase) -> Iterator[Copied]:
    """Atoms that have the first tensor's factors."""
    tensor = case.tensors[0]
    wanted = case.wanted(tensor)
    for atom in case.atoms:
        pair = case.pair(atom, tensor)
        if pair is not None and torch.equal(pair.a.to(wanted.a.dtype), wanted.a) and torch.equal(pair.b.to(wanted.b.dtype), wanted.b):
            yield Copied(atom, wanted.scale / pair.scale)
