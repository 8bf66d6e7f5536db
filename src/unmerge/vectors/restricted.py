"""Inner products over some of the weights: where the target changes them, or at the places of a mask.

X (n + 1, k) holds the atoms and, last, the target at the k weights that count; X X^T is all that a solver needs. A change is
expanded a few rows at a time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from unmerge.vectors.delta import Delta
from unmerge.vectors.entries import at, row_blocks, rows
from unmerge.vectors.gram import Weights


class ChangedWeights(Weights):
    """Those that the target changes: its non-zero entries. None in a tensor that it leaves as it is."""

    def products(self, tensor: str, atoms: Sequence[Delta | None], target: Delta | None) -> tuple[NDArray[np.float64], int]:
        products, entries = np.zeros((len(atoms) + 1, len(atoms) + 1)), 0
        if target is None:
            return products, entries
        for block in row_blocks(target.shape, len(atoms) + 1):
            changes = rows(target, block).reshape(-1)
            where = changes.nonzero()[:, 0]
            expanded = [rows(atom, block).reshape(-1)[where] if atom is not None else None for atom in atoms]
            products += _products([*expanded, changes[where]], len(where))
            entries += len(where)
        return products, entries


@dataclass(frozen=True)
class MaskedWeights(Weights):
    """Those at some places.

    Attributes:
        places: for each tensor the places that count; none in a tensor that is not named.
    """

    places: Mapping[str, Int[Tensor, " k"]]

    def products(self, tensor: str, atoms: Sequence[Delta | None], target: Delta | None) -> tuple[NDArray[np.float64], int]:
        where = self.places.get(tensor, torch.zeros(0, dtype=torch.int64))
        return _products([at(change, where) if change is not None else None for change in (*atoms, target)], len(where)), len(where)


def _products(values: Sequence[Float[Tensor, " k"] | None], count: int) -> NDArray[np.float64]:
    """(n, n) inner products of n vectors of ``count`` numbers, None for zeros."""
    stacked = torch.zeros(len(values), count, dtype=torch.float64)
    for row, value in enumerate(values):
        if value is not None:
            stacked[row] = value
    return np.asarray((stacked @ stacked.T).numpy())
