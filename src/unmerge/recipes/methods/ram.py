"""ram: average the changes that are larger than epsilon over the atoms that have one there (Reinforced Agent Merging, arXiv 2601.13572).

What gives it away: every entry is the mean of the largest changes there, whole where only one atom has one; there is no weight to
find. Epsilon lies between the largest change that was left out and the smallest that took part.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unmerge.recipes.case import Case, Flat
from unmerge.recipes.decimals import shortest
from unmerge.recipes.polish import ordered
from unmerge.recipes.recipe import BASE, Input, Recipe

#: mergekit's default
EPSILON = 1e-5
#: relative rounding errors of a sum
_PRECISION = {torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11, torch.float32: 2.0**-22, torch.float64: 2.0**-51}
#: the share of entries that an epsilon must explain
_EXPLAINED = 0.9
#: changes that stand alone and are not the target, from which it is another method
OTHERWISE = 2


@dataclass(frozen=True)
class Averaged:
    """Entries of a target that averages what exceeds epsilon.

    Attributes:
        flat: changes.
        low: the largest change that was left out.
        high: the smallest that took part: epsilon lies between.
        share: of entries that such an epsilon explains.
        slack: (N,) how far rounding may have moved the target.
    """

    flat: Flat
    low: float
    high: float
    share: float
    slack: Tensor

    @property
    def epsilon(self) -> float:
        """mergekit's default where it will do, or the shortest decimal."""
        return EPSILON if self.low <= EPSILON < self.high else shortest(self.low, self.low + 0.999 * (self.high - self.low))

    @property
    def alone(self) -> Tensor:
        """(n, N) changes that exceed epsilon where no other does."""
        large = self.flat.atoms.abs() > self.epsilon
        return large & (large.sum(0) == 1)

    def stretched(self) -> int:
        """How many changes that stand alone are not the target."""
        alone = self.alone
        there = alone.any(0)
        return int((((self.flat.atoms * alone).sum(0) - self.flat.target).abs() > self.slack)[there].sum())


def candidates(case: Case, atoms: Sequence[str]) -> Iterator[Recipe]:
    """The epsilon with which most entries are means of what exceeds it."""
    found = averaged(case, atoms)
    if found is not None and found.stretched() < OTHERWISE:
        yield ordered(case, recipe(case, atoms, "ram", found), case.quick[:1])


def recipe(case: Case, atoms: Sequence[str], method: str, found: Averaged, **settings: float) -> Recipe:
    """A recipe of one of the two methods."""
    if found.epsilon != EPSILON:
        settings["epsilon"] = found.epsilon
    return Recipe(method, tuple(Input(atom) for atom in atoms), BASE, settings, case.dtype_name)


def averaged(case: Case, atoms: Sequence[str]) -> Averaged | None:
    """Where epsilon lies; None where no epsilon explains most entries.

    At every entry each number m of largest changes is tried; where their mean is the target, epsilon lies between change m + 1
    and change m. A change that stands alone may have been made larger (ramplus_tl), which no mean is.
    """
    flat = case.flat(atoms, case.enough)
    sizes, order = flat.atoms.abs().sort(dim=0, descending=True)
    changes = flat.atoms.gather(0, order)
    means = torch.cat([torch.zeros_like(sizes[:1]), changes.cumsum(0) / torch.arange(1, len(atoms) + 1)[:, None]])
    slack = flat.half * (1 + 1e-6) + _PRECISION[case.dtype] * sizes[0]
    fits = (means - flat.target).abs() <= slack
    fits[1] |= flat.target * changes[0].sign() > sizes[0]
    counts = (flat.target != 0) | (sizes[0] > 0)
    limits = torch.cat([torch.full_like(sizes[:1], torch.inf), sizes, torch.zeros_like(sizes[:1])])
    low, high = limits[1:][fits & counts], limits[:-1][fits & counts]
    if not len(low):
        return None
    first, last, most = _agreed(low, high)
    share = most / int(counts.sum())
    return Averaged(flat, first, last, share, slack) if share >= _EXPLAINED else None


def _agreed(low: Tensor, high: Tensor) -> tuple[float, float, int]:
    """The interval that the most of [low, high) have in common, and how many have."""
    ends, place = torch.unique(torch.cat([low, high]), return_inverse=True)
    steps = torch.cat([torch.ones_like(low), -torch.ones_like(high)])
    count = torch.zeros_like(ends).index_add_(0, place, steps).cumsum(0)
    first = int(count.argmax())
    beyond = torch.nonzero(count[first:] < count[first])[:, 0]
    return float(ends[first]), float(ends[first + int(beyond[0])]), int(count[first])
