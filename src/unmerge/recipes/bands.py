"""Which entries of each atom a merge kept, where that was decided by magnitude.

In a merge with positive weights, an entry whose change has a sign that only one atom has there was kept of that atom, whatever
else was done: elected or not, normalised or not. The magnitudes of these entries, ranked within their tensor, fill the band
of ranks that was kept: everything under dare, the upper part under ties, all but the largest and the smallest under
breadcrumbs. Once weights are about right, the band's ends follow from which entries explain the target.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unmerge.recipes.case import Flat
from unmerge.recipes.decimals import shortest
from unmerge.recipes.weights import Weighing

#: into how many steps ranks are divided
_BINS = 10_000
#: an end is known to this share: counts are whole numbers, in tensors of some ten thousand weights
_WIDTH = 2.5e-4


@dataclass(frozen=True)
class Band:
    """What was kept of one atom, as shares of a tensor's entries counted from the largest.

    Attributes:
        top: where the band begins; what lies before was dropped.
        reach: where it ends.
    """

    top: float
    reach: float

    @property
    def settings(self) -> tuple[float, float]:
        """(density, gamma) as they may have been typed."""
        gamma = shortest(max(self.top - _WIDTH, 0.0), self.top + _WIDTH)
        density = self.reach - gamma
        return shortest(max(density - 2 * _WIDTH, 0.0), min(density + 2 * _WIDTH, 1.0)), gamma

    @property
    def from_the_top(self) -> Band:
        """The band with nothing dropped at the top."""
        return Band(0.0, self.reach)


@dataclass(frozen=True)
class Ranked:
    """Entries of atoms by magnitude within their tensor.

    Attributes:
        flat: the changes.
        rank: (n, N) 0 for the largest.
        size: (N,) of the tensor that an entry belongs to.
    """

    flat: Flat
    rank: Tensor
    size: Tensor

    @staticmethod
    def of(flat: Flat) -> Ranked:
        rank = torch.zeros_like(flat.atoms, dtype=torch.int64)
        size = torch.ones(flat.atoms.shape[1], dtype=torch.int64)
        for part in flat.parts.values():
            order = torch.argsort(flat.atoms[:, part].abs(), dim=1, descending=True)
            rank[:, part] = rank[:, part].scatter(1, order, torch.arange(order.shape[1]).expand_as(order))
            size[part] = order.shape[1]
        return Ranked(flat, rank, size)

    def kept(self, settings: Sequence[tuple[float, float]]) -> Tensor:
        """(n, N) the entries that (density, gamma) keep."""
        density, gamma = (torch.tensor(column, dtype=torch.float64)[:, None] for column in zip(*settings, strict=True))
        count = (density * self.size).to(torch.int64).clamp(min=1)
        first = torch.minimum((gamma * self.size).to(torch.int64), self.size - count)
        return (self.rank >= first) & (self.rank < first + count)

    def bands(self) -> tuple[Band, ...] | None:
        """The band of every atom, from the outermost entries that were surely kept; None where an atom never stands alone."""
        share = self.rank.double() / self.size
        agrees = (self.flat.atoms.sign() == self.flat.target.sign()) & (self.flat.target != 0)
        alone = agrees & (agrees.sum(0) == 1)
        if not bool(alone.any(1).all()):
            return None
        return tuple(Band(float(mine[seen].min()), float(mine[seen].max())) for mine, seen in zip(share, alone, strict=True))

    def sharpened(self, kept: Tensor, weighing: Weighing, scale: float) -> tuple[Band, ...]:
        """The bands again, from how far the target is from what the merge would make with and without each entry of an atom.

        An entry that was kept is better explained with it. Along the ranks, the band is the contiguous piece with the
        largest gain.

        Args:
            kept: (n, N) masks, about right.
            weighing: weights, about right.
            scale: residuals beyond this say no more than it does.
        """
        cap = (2 * self.flat.half + scale).square()
        found = []
        for place, mine in enumerate(self.flat.atoms):
            changes = self.flat.atoms * kept
            changes[place] = mine
            inside = (weighing.made(changes) - self.flat.target).square()
            changes[place] = 0
            outside = (weighing.made(changes) - self.flat.target).square()
            gain = (torch.minimum(outside, cap) - torch.minimum(inside, cap)) / cap
            first, last = _largest_piece(torch.zeros(_BINS, dtype=torch.float64).index_add_(0, self.rank[place] * _BINS // self.size, gain))
            found.append(Band(first / _BINS, last / _BINS))
        return tuple(found)


def _largest_piece(gains: Tensor) -> tuple[int, int]:
    """The contiguous piece with the largest sum, as [first, last)."""
    total = torch.cat([torch.zeros(1, dtype=gains.dtype), gains.cumsum(0)])
    lowest, where = torch.cummin(total, 0)
    last = int((total - lowest).argmax())
    return int(where[last]), last
