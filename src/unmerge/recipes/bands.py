"""Which entries of each atom a merge kept, where that was decided by magnitude.

An entry whose change has a sign that only one atom has there was kept of that atom, whatever else was done: elected or not,
normalised or not. The ranks of these entries, by magnitude within their tensor, fill the band that was kept: the upper part
under ties, all but the largest and the smallest under breadcrumbs. Once weights are about right, the band's ends follow from
which entries explain the target.

In a bfloat16 checkpoint many changes are equal, so the order among equals counts; it is the one that mergekit's sort gives.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unmerge.recipes.case import Flat
from unmerge.recipes.decimals import shortest
from unmerge.recipes.weights import Weighing, least_squares

#: ranks are whole numbers, in tensors of some ten thousand weights: an end is known to this share at best
_WIDTH = 1.5e-4
#: entries beyond an end that were surely kept: how far it may be from the outermost one
_NEIGHBOURS = 10


@dataclass(frozen=True)
class Band:
    """What was kept of one atom, as shares of a tensor's entries counted from the largest: two ends, each between two numbers.

    Attributes:
        top: where the band begins; what lies before was dropped.
        reach: where it ends.
    """

    top: tuple[float, float]
    reach: tuple[float, float]

    @property
    def settings(self) -> tuple[float, float]:
        """(density, gamma) as they may have been typed."""
        gamma = shortest(max(self.top[0] - _WIDTH, 0.0), self.top[1] + _WIDTH)
        return shortest(max(self.reach[0] - gamma - _WIDTH, 0.0), min(self.reach[1] - gamma + _WIDTH, 1.0)), gamma


@dataclass(frozen=True)
class Ranked:
    """Entries of atoms by magnitude within their tensor.

    Attributes:
        flat: the changes.
        outliers: whether the largest may be dropped; mergekit then sorts from below, and equals the other way.
        rank: (n, N) 0 for the largest.
        size: (N,) of the tensor that an entry belongs to.
    """

    flat: Flat
    outliers: bool
    rank: Tensor
    size: Tensor

    @staticmethod
    def of(flat: Flat, outliers: bool) -> Ranked:
        """Rank the entries of every tensor in mergekit's order."""
        rank = torch.zeros_like(flat.atoms, dtype=torch.int64)
        size = torch.ones(flat.atoms.shape[1], dtype=torch.int64)
        for part in flat.parts.values():
            number = part.stop - part.start
            for row, changes in zip(rank, flat.atoms, strict=True):
                magnitudes = changes[part].abs().float()
                order = torch.sort(magnitudes).indices.flip(0) if outliers else torch.argsort(magnitudes, descending=True)
                row[part].scatter_(0, order, torch.arange(number))
            size[part] = number
        return Ranked(flat, outliers, rank, size)

    def every(self, step: int) -> Ranked:
        """Every so manieth entry only."""
        places = torch.arange(0, len(self.size), step)
        return Ranked(self.flat.some(places), self.outliers, self.rank[:, places], self.size[places])

    def kept(self, settings: Sequence[tuple[float, float]]) -> Tensor:
        """(n, N) the entries that (density, gamma) keep."""
        density, gamma = (torch.tensor(column, dtype=torch.float64)[:, None] for column in zip(*settings, strict=True))
        count = (density * self.size).to(torch.int64)
        first = torch.minimum((gamma * self.size).to(torch.int64), self.size - count)
        return (density >= 1) | ((self.rank >= first) & (self.rank < first + count))

    def within(self, bands: Sequence[Band]) -> Tensor:
        """(n, N) the entries inside of the narrowest bands."""
        first, last = (torch.tensor(ends, dtype=torch.float64)[:, None] for ends in zip(*((band.top[1], band.reach[0]) for band in bands), strict=True))
        return (self.rank >= first * self.size - 0.5) & (self.rank < last * self.size - 0.5)

    def lone(self) -> tuple[Band, ...] | None:
        """The band of every atom, from the outermost entries that were surely kept; None where an atom hardly ever stands alone."""
        signs = least_squares(self.flat.atoms, self.flat.target).sign()[:, None]
        agrees = (self.flat.atoms.sign() * signs == self.flat.target.sign()) & (self.flat.target != 0)
        alone = agrees & (agrees.sum(0) == 1)
        found = []
        for rank, seen in zip(self.rank, alone, strict=True):
            if int(seen.sum()) <= 2 * _NEIGHBOURS:
                return None
            first = (rank[seen].double() / self.size[seen]).sort().values
            last = ((rank[seen] + 1).double() / self.size[seen]).sort().values
            beyond, before = float(last[-1] - last[-_NEIGHBOURS]), float(first[_NEIGHBOURS - 1] - first[0])
            top = (max(float(first[0]) - before, 0.0), float(first[0])) if self.outliers else (0.0, 0.0)
            found.append(Band(top, (float(last[-1]), min(float(last[-1]) + beyond, 1.0))))
        return tuple(found)

    def sharpened(self, kept: Tensor, scales: Tensor, weighing: Weighing, slack: float) -> tuple[Band, ...]:
        """The bands again, from how far the target is from what the merge would make with and without each entry of an atom.

        An entry that was kept is better explained with it. Along the ranks, the band is the contiguous piece with the
        largest gain, and its ends lie between entries that tell.

        Args:
            kept: (n, N) masks, about right.
            scales: (n, N) what kept entries are multiplied by before they are weighed.
            weighing: weights, about right.
            slack: residuals beyond this say no more than it does.
        """
        cap = (2 * self.flat.half + slack).square()
        found = []
        whole = self.flat.atoms * scales
        changes = whole * kept
        for place in range(len(whole)):
            mine = changes[place].clone()
            changes[place] = whole[place]
            inside = (weighing.made(changes, self.flat.target) - self.flat.target).square()
            changes[place] = 0
            outside = (weighing.made(changes, self.flat.target) - self.flat.target).square()
            changes[place] = mine
            gain = (torch.minimum(outside, cap) - torch.minimum(inside, cap)) / cap
            found.append(self._band(place, gain))
        return tuple(found)

    def _band(self, place: int, gain: Tensor) -> Band:
        tells = gain.abs() > 1e-3
        rank, size = self.rank[place][tells], self.size[tells]
        order = torch.argsort(rank.double() / size)
        share = (rank[order] + 0.5) / size[order]
        first, last = _largest_piece(gain[tells][order], self.outliers)
        ends = torch.cat([torch.zeros(1), share, torch.ones(1)])  # entry k of the piece is ends[k + 1]
        return Band((float(ends[first]), float(ends[first + 1])) if self.outliers else (0.0, 0.0), (float(ends[last]), float(ends[last + 1])))


def _largest_piece(gains: Tensor, anywhere: bool) -> tuple[int, int]:
    """The contiguous piece with the largest sum, as [first, last); from the start, unless it may begin anywhere."""
    total = torch.cat([torch.zeros(1, dtype=gains.dtype), gains.cumsum(0)])
    if not anywhere:
        return 0, int(total.argmax())
    lowest, where = torch.cummin(total, 0)
    last = int((total - lowest).argmax())
    return int(where[last]), last
