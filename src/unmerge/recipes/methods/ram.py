"""ram: average the changes that are larger than epsilon over the atoms that have one there (Reinforced Agent Merging, arXiv 2601.13572).

What gives it away: every entry is the mean of the largest changes there, whole where only one atom has one; there is no weight to
find. Epsilon lies between the largest change that was left out and the smallest that took part.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from unmerge.recipes.case import Case, Flat
from unmerge.recipes.decimals import cell, shortest
from unmerge.recipes.polish import ordered
from unmerge.recipes.recipe import BASE, Input, Recipe

#: mergekit's default
EPSILON = 1e-5
#: relative rounding errors of a sum
_PRECISION = {torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11, torch.float32: 2.0**-22, torch.float64: 2.0**-51}
#: the share of entries that an epsilon must explain
_EXPLAINED = 0.9
#: how many fewer entries may agree on an epsilon that is run: means of equal changes look alike
_NEARLY = 3e-3
#: changes that stand alone and are not the target, from which it is another method
OTHERWISE = 2


@dataclass(frozen=True)
class Averaged:
    """Entries of a target that averages what exceeds epsilon.

    Attributes:
        flat: changes.
        epsilon: mergekit's default where it will do, or the shortest decimal.
        dtype: of the merge; ramplus_tl writes float32 whatever it computes means in.
    """

    flat: Flat
    epsilon: float
    dtype: torch.dtype

    @property
    def large(self) -> Tensor:
        """(n, N) changes that exceed epsilon, compared as mergekit does, in the dtype of the merge."""
        return self.flat.atoms.to(self.dtype).abs() > self.epsilon

    @property
    def alone(self) -> Tensor:
        """(n, N) changes that exceed epsilon where no other does."""
        large = self.large
        return large & (large.sum(0) == 1)

    def stretched(self) -> int:
        """How many changes that stand alone are not the target."""
        alone = self.alone
        there = alone.any(0)
        changes = (self.flat.atoms * alone).sum(0)
        slack = self.flat.half * (1 + 1e-6) + _PRECISION[torch.float32] * changes.abs()
        return int(((changes - self.flat.target).abs() > slack)[there].sum())


def candidates(case: Case, atoms: Sequence[str]) -> Iterator[Recipe]:
    """The epsilon with which most entries are means of what exceeds it."""
    found = averaged(case, atoms)
    if found is not None and found.stretched() < OTHERWISE:
        yield ordered(case, recipe(atoms, "ram", found), case.quick[-1:])


def recipe(atoms: Sequence[str], method: str, found: Averaged, **settings: float) -> Recipe:
    """A recipe of one of the two methods."""
    if found.epsilon != EPSILON:
        settings["epsilon"] = found.epsilon
    return Recipe(method, tuple(Input(atom) for atom in atoms), BASE, settings, str(found.dtype).removeprefix("torch."))


def averaged(case: Case, atoms: Sequence[str], dtype: torch.dtype | None = None) -> Averaged | None:
    """Where epsilon lies; None where no epsilon explains most entries.

    At every entry each number m of largest changes is tried; where their mean is the target, epsilon lies between change m + 1
    and change m. A change that stands alone may have been made larger (ramplus_tl), which no mean is.

    Args:
        case: target and models.
        atoms: those that are in the target.
        dtype: that means were computed in; the target's own by default.
    """
    dtype = dtype or case.computed
    flat = case.flat(atoms, case.enough)
    flat = replace(flat, atoms=flat.atoms.to(dtype).double())
    sizes, order = flat.atoms.abs().sort(dim=0, descending=True)
    changes = flat.atoms.gather(0, order)
    means = torch.cat([torch.zeros_like(sizes[:1]), changes.cumsum(0) / torch.arange(1, len(atoms) + 1)[:, None]])
    slack = flat.half * (1 + 1e-6) + _PRECISION[dtype] * sizes[0]
    fits = (means - flat.target).abs() <= slack
    fits[1] |= flat.target * changes[0].sign() > sizes[0]
    counts = (flat.target != 0) | (sizes[0] > 0)
    limits = torch.cat([torch.full_like(sizes[:1], torch.inf), sizes, torch.zeros_like(sizes[:1])])
    low, high = limits[1:][fits & counts], limits[:-1][fits & counts]
    if not len(low):
        return None
    ends, count = _agreement(low, high)
    if count.max() < _EXPLAINED * counts.sum():
        return None
    made = {epsilon: case.identical(recipe(atoms, "ram", Averaged(flat, epsilon, dtype)), case.quick) for epsilon in _epsilons(ends, count, dtype)}
    return Averaged(flat, max(made, key=lambda epsilon: made[epsilon]), dtype)


def _agreement(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """The ends of all intervals [low, high), in order, and how many contain what follows each."""
    ends, place = torch.unique(torch.cat([low, high]), return_inverse=True)
    steps = torch.cat([torch.ones_like(low), -torch.ones_like(high)])
    return ends, torch.zeros_like(ends).index_add_(0, place, steps).cumsum(0)


def _epsilons(ends: Tensor, count: Tensor, dtype: torch.dtype) -> list[float]:
    """Epsilons that as many entries agree on as on any other, or nearly: the shortest decimals, mergekit's default first."""
    found: dict[float, None] = {}
    most = int(count.argmax())
    for missing in (_NEARLY, 0.0):
        good = count >= count[most] * (1 - missing)
        first = most - int((~good[: most + 1].flip(0)).int().argmax()) + 1 if bool((~good[: most + 1]).any()) else 0
        last = most + int((~good[most:]).int().argmax())
        low, high = cell(float(ends[first]), dtype)[0], float(ends[last])
        found.setdefault(EPSILON if low <= EPSILON < high else shortest(low, low + 0.999 * (high - low)))
    return list(found)
