"""Weights of a target beside what they were before: what rounding hides, and what every weight still tells.

A base lies on its dtype's grid, so small changes vanish and the others move by whole steps. But a weight y on the grid was somewhere
between the midpoints to its neighbours before the last rounding. ``rounding_order`` says what was rounded before,
``rounding_intervals`` fits coefficients to where the weights must have been, ``rounding_fit`` tells which order explains them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

from unmerge.certificate.float_grid import cell, grid_of, rounded
from unmerge.certificate.rounding_intervals import Intervals
from unmerge.certificate.rounding_order import Order
from unmerge.vectors import Rows, TaskVector
from unmerge.vectors.entries import rows

Matrix = NDArray[np.float64]

#: numbers that are held (200 MB), rows evenly spread over all tensors; intervals are so tight that a few millions are plenty
_HELD = 24_000_000
#: a coefficient is not claimed to be closer than this: float32's figures
FIGURES = 1e-6
#: nor closer than this share of the grid's relative step: a merge computed on the grid rounds products of a few steps with the weight,
#: which acts as another weight. Seen on mergekit's bfloat16 merges: up to a sixteenth of a step
_OF_A_STEP = 1 / 16
#: share of the weights that trimming leaves unchanged, at least; and how often one of them would have changed less than another weight.
#: Seen in mergekit's merges: .78 to .86 under ties, .50 to .54 under dare
_TRIMMED, _SMALLER = 0.005, 0.65


@dataclass(frozen=True)
class Grid:
    """The weights that a target's changes were added to, and the dtype that they were rounded to.

    Attributes:
        base: a tensor of the base, in its own dtype, to be read by rows: adapters are merged into it in that dtype.
        dtype: that the target's tensor of that name is stored in; its values may lie on a coarser grid, which is found.
    """

    base: Callable[[str], Rows]
    dtype: Callable[[str], torch.dtype]


@dataclass(frozen=True)
class Elsewhere:
    """The tensors that no atom changes, as far as rows of them were looked at.

    Attributes:
        change: the target's squared change there.
        rounding: what rounding the base to the target's grid leaves of it.
    """

    change: float = 0.0
    rounding: float = 0.0


@dataclass(frozen=True)
class Sample:
    """Rounded weights of a target, and what k atoms would have changed in them.

    Attributes:
        base: (w,) the base's weights, float64.
        change: (w,) the target's change.
        atoms: (k, w) the atoms' changes, not rounded.
        owner: (w,) the tensor that each weight is in, by place.
        grids: of the tensors, the dtype that the target's values lie on.
        stored: of the tensors, the dtype of the base.
        elsewhere: tensors that no atom changes.
        tensors: their names.
        source: what was read.
    """

    base: Tensor
    change: Tensor
    atoms: Tensor
    owner: Tensor
    grids: tuple[torch.dtype, ...]
    stored: tuple[torch.dtype, ...]
    elsewhere: Elsewhere = Elsewhere()
    tensors: tuple[str, ...] = ()
    source: Grid | None = None

    @staticmethod
    def of(atoms: Sequence[TaskVector], target: TaskVector, grid: Grid, watch: Callable[[Iterable[str]], Iterable[str]] = iter) -> Sample:
        """Read the rows that are looked at, once."""
        tensors = [name for name in target.shapes if any(name in atom.shapes for atom in atoms)]
        total = sum(math.prod(target.shapes[name]) for name in tensors)
        every = max(-(-total * (len(atoms) + 5) // _HELD), 1)
        parts: list[tuple[Tensor, ...]] = []
        grids, stored, changed, lost = [], [], 0.0, 0.0
        for place, name in enumerate(watch([*tensors, *(name for name in target.shapes if name not in set(tensors))])):
            chosen = slice(place % min(every, *target.shapes[name][:1] or (1,)), None, every)
            values = grid.base(name)
            base = (values[chosen] if values.shape else values[...]).double().reshape(-1, math.prod(target.shapes[name][1:]))
            change = rows(target.delta(name), chosen)
            dtype = grid_of(base + change, grid.dtype(name))
            if place >= len(tensors):
                changed, lost = changed + float(change.square().sum()), lost + float((rounded(base, dtype) - base).square().sum())
                continue
            unrounded = torch.stack([rows(atom.delta(name), chosen) if name in atom.shapes else torch.zeros_like(base) for atom in atoms])
            owner = torch.full_like(base, place, dtype=torch.int16 if len(tensors) < 1 << 15 else torch.int32)
            parts.append((base.flatten(), change.flatten(), owner.flatten(), unrounded.flatten(1)))
            grids.append(dtype)
            stored.append(values.dtype)
        base, change, owner = (torch.cat([part[place] for part in parts]) for place in range(3))
        unrounded = torch.cat([part[3] for part in parts], dim=1)
        return Sample(base, change, unrounded, owner, tuple(grids), tuple(stored), Elsewhere(changed, lost), tuple(tensors), grid)

    def only(self, atoms: Sequence[int]) -> Sample:
        """The same weights, some of the atoms."""
        return replace(self, atoms=self.atoms[list(atoms)])

    def thinned(self, most: int) -> Sample:
        """About so many of the weights, evenly spread."""
        step = max(len(self.base) // most, 1)
        return replace(self, base=self.base[::step], change=self.change[::step], atoms=self.atoms[:, ::step], owner=self.owner[::step])

    def on_grid(self, values: Tensor) -> Tensor:
        """(w,) rounded to the grid that the target lies on."""
        return self._rounded(values, self.grids)

    def on_base_grid(self, values: Tensor) -> Tensor:
        """(w,) rounded to the dtype that the base is stored in."""
        return self._rounded(values, self.stored)

    def acting(self, coefficients: Matrix) -> Matrix:
        """(k,) coefficients rounded to the target's grid, where it is the same in all tensors."""
        (dtype, *others) = dict.fromkeys(self.grids)
        return coefficients if others else rounded(torch.from_numpy(coefficients), dtype).numpy()

    @property
    def target(self) -> Tensor:
        """(w,) the target's weights."""
        return self.base + self.change

    @property
    def step(self) -> Tensor:
        """(w,) the width of each weight's cell."""
        below, above = self.cells()
        return below + above

    def cells(self) -> tuple[Tensor, Tensor]:
        """((w,), (w,)) distances from the target's weight to the ends of its cell, below and above."""
        below, above = torch.zeros_like(self.base), torch.zeros_like(self.base)
        for dtype, here in self._by_dtype(self.grids):
            below[here], above[here] = cell(self.target[here], dtype)
        return below, above

    def intervals(self, order: Order, coefficients: Matrix) -> Intervals:
        """Where the sum of the components must lie, if the weights were rounded in this order, with these coefficients up to the last rounding."""
        regressors = order.regressors(self)
        middle = self.change - order.offset(self, regressors, coefficients)
        below, above = self.cells()
        return Intervals(regressors, middle - below, middle + above, self.owner, len(self.grids))

    @property
    def coarseness(self) -> float:
        """The variance of rounding to the grid, a twelfth of the squared step, over the target's squared change."""
        return float(self.step.square().sum() / 12 / self.change.square().sum())

    @property
    def figures(self) -> float:
        """The relative error that a coefficient may have from rounding on the way."""
        return max(FIGURES, *(_OF_A_STEP * torch.finfo(dtype).eps for dtype in self.grids))

    def on_the_way(self, coefficients: Matrix) -> Tensor:
        """(w,) how far rounding on the way may move each sum: products with the coefficients, and factors, have the grid's figures at best."""
        error = torch.tensor([max(torch.finfo(dtype).eps / 2, FIGURES) for dtype in self.grids], dtype=torch.float64)[self.owner.long()]
        return error * torch.einsum("k,kw->w", torch.from_numpy(np.abs(coefficients)), self.atoms.abs())

    def is_trimmed(self, coefficients: Matrix) -> bool:
        """Whether small changes were trimmed, as ties does.

        Rounding leaves as many weights unchanged as it moves by one step either way; a mask leaves more. Those that dare leaves
        are any, those that trimming leaves would have changed less than the others.
        """
        step, size = self.step, (torch.from_numpy(coefficients) @ self.atoms).abs()
        told = size > 2 * step
        unchanged, moved = told & (self.change == 0), told & (self.change != 0) & (self.change.abs() < 1.5 * step)
        if int(unchanged.sum()) - int(moved.sum()) / 2 < _TRIMMED * int(told.sum()) or not bool((told & ~unchanged).any()):
            return False
        larger = stats.mannwhitneyu(size[told & ~unchanged].numpy(), size[unchanged].numpy(), method="asymptotic")
        return bool(larger.statistic >= _SMALLER * float(unchanged.sum()) * float((told & ~unchanged).sum()))

    def rounding_share(self, order: Order, coefficients: Matrix) -> float:
        """||round(W + t_hat) - (W + t_hat)||^2 / ||t||^2: what rounding alone leaves of a target made of these components in this order."""
        ideal = self.base + torch.from_numpy(coefficients) @ self.atoms
        left = float((order.forward(self, coefficients) - ideal).square().sum())
        return (left + self.elsewhere.rounding) / (float(self.change.square().sum()) + self.elsewhere.change)

    def _rounded(self, values: Tensor, dtypes: Sequence[torch.dtype]) -> Tensor:
        result = torch.zeros_like(values)
        for dtype, here in self._by_dtype(dtypes):
            result[here] = rounded(values[here], dtype)
        return result

    def _by_dtype(self, dtypes: Sequence[torch.dtype]) -> list[tuple[torch.dtype, slice | Tensor]]:
        """The weights of each dtype."""
        different = list(dict.fromkeys(dtypes))
        if len(different) == 1:
            return [(different[0], slice(None))]
        return [(dtype, torch.tensor([other == dtype for other in dtypes])[self.owner.long()]) for dtype in different]
