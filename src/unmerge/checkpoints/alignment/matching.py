"""Which row of one matrix is which of another: nearest neighbours by cosine, assigned by linear programming only where they are in doubt.

A merge changes a row little beside the row itself, so a permuted row's nearest neighbour in the base is where it came from, at a
cosine near 1; other rows of a width of 64 are at .5 or less. Wide matrices are compared in random projections of 256 dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor

#: dimensions that cosines are taken in; their error is a sixteenth
_SKETCH = 256
#: rows compared with all others at a time
_BLOCK = 1024
#: rows that are assigned by linear programming at most
_ASSIGNED = 4096
#: rows whose |cosine| is at least this are the same row, changed: a change of up to 1.7 times the row itself leaves it. Over tests with
#: changes of .1 to .5 times the rows, any value from .3 to .8 gives the same answers
ALIKE = 0.5


@dataclass(frozen=True)
class Match:
    """Rows of a target brought to the rows of a base.

    Attributes:
        order: (n,) the target's row for each row of the base.
        cosines: (n,) of each pair, signed.
        in_place: (n,) cosines of the rows with equal numbers.
    """

    order: Int[Tensor, " n"]
    cosines: Float[Tensor, " n"]
    in_place: Float[Tensor, " n"]

    @property
    def alike(self) -> float:
        """Share of the rows that are the same row, changed."""
        return _share(self.cosines)

    @property
    def alike_in_place(self) -> float:
        """The same for rows with equal numbers."""
        return _share(self.in_place)

    @property
    def moved(self) -> int:
        """How many rows lie elsewhere."""
        return int((self.order != torch.arange(len(self.order))).sum())


def match(target: Float[Tensor, "n m"], base: Float[Tensor, "n m"]) -> Match:
    """Bring the rows of two matrices together, whatever their signs and lengths.

    Where fewer than half of the rows have a nearest neighbour of their own, nothing is moved.
    """
    one, two = (_directions(side) for side in (target, base))
    in_place = (one * two).sum(1)
    order = torch.arange(len(two))
    if bool((in_place.abs() >= ALIKE).all()):
        return Match(order, in_place, in_place)
    near, place = _nearest(two, one)
    sure = (near >= ALIKE) & (torch.bincount(place, minlength=len(two))[place] == 1)
    if 2 * int(sure.sum()) < len(two):
        return Match(order, in_place, in_place)
    order[sure] = place[sure]
    wanted, free = torch.nonzero(~sure)[:, 0], torch.nonzero(torch.bincount(place[sure], minlength=len(two)) == 0)[:, 0]
    if 0 < len(wanted) <= _ASSIGNED:
        order[wanted] = free[torch.from_numpy(linear_sum_assignment(-(two[wanted] @ one[free].T).abs().numpy())[1])]
    else:
        order[wanted] = free
    return Match(order, (one[order] * two).sum(1), in_place)


def _nearest(rows: Float[Tensor, "k d"], others: Float[Tensor, "n d"]) -> tuple[Float[Tensor, " k"], Int[Tensor, " k"]]:
    """For each row the largest |cosine| with another matrix's rows, and where it is."""
    found = [(rows[start : start + _BLOCK] @ others.T).abs().max(dim=1) for start in range(0, len(rows), _BLOCK)]
    return torch.cat([pair.values for pair in found]), torch.cat([pair.indices for pair in found])


def _directions(values: Float[Tensor, "n m"]) -> Float[Tensor, "n d"]:
    wide: Tensor = values.float()
    if wide.shape[1] > _SKETCH:
        generator = torch.Generator().manual_seed(0)
        wide = wide @ (torch.randint(0, 2, (wide.shape[1], _SKETCH), generator=generator).float() * 2 - 1)
    found: Tensor = wide / wide.norm(dim=1, keepdim=True).clamp_min(1e-30)
    return found


def _share(cosines: Float[Tensor, " n"]) -> float:
    return float((cosines.abs() >= ALIKE).float().mean())
