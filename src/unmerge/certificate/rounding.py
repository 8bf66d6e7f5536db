"""What rounding hides, and what it still tells: every weight says which interval its unrounded value lies in.

A base lies on its dtype's grid, so small changes vanish and the others move by whole steps; least squares then shrinks. But a
weight y on the grid was somewhere between the midpoints to its neighbours. The sum of squared distances of sum_i c_i V_i to those
intervals is convex and piecewise quadratic in c: a few Newton steps on the weights outside their intervals minimise it. The
atoms are taken as mergekit takes them, merged into the base in its dtype and subtracted again.
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

from unmerge.certificate.systems import jackknife_interval, solve
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
#: share of the weights that may lie outside their intervals where nothing unknown is in the target. Seen, with 50% to 92% of the weights
#: unchanged: below .01 without an unknown component, .06 to .3 with one
_OUTSIDE = 0.02
#: and as a share of the weights that changed: where nearly none did, no atom at all would leave few outside
_OF_CHANGED = 0.25
#: share of the weights that a merge computed on the grid must give exactly before its coefficients are believed
_IDENTICAL = 0.99
#: share of the weights that trimming leaves unchanged, at least; and how often one of them would have changed less than another weight.
#: Seen in mergekit's merges: .78 to .86 under ties, .50 to .54 under dare
_TRIMMED, _SMALLER = 0.005, 0.65
#: Newton steps, halvings of a step that does not descend, and the gain below which the answer is still
_STEPS, _HALVINGS, _STILL = 60, 30, 1e-12


@dataclass(frozen=True)
class Grid:
    """The weights that a target's changes were added to, and the dtype that they were rounded to.

    Attributes:
        base: a tensor of the base, in its own dtype, to be read by rows: adapters are merged into it in that dtype.
        dtype: of the target's tensor of that name.
    """

    base: Callable[[str], Rows]
    dtype: Callable[[str], torch.dtype]


@dataclass(frozen=True)
class Sample:
    """Rounded weights of a target, and what k atoms would have changed in them.

    Attributes:
        base: (w,) the base's weights, float64.
        change: (w,) the target's change.
        below, above: (w,) distances from the target's weight to the ends of its interval.
        atoms: (k, w) the atoms' changes, each rounded on the base's grid.
        owner: (w,) the tensor that each weight is in, by place.
        dtypes: of the tensors.
    """

    base: Tensor
    change: Tensor
    below: Tensor
    above: Tensor
    atoms: Tensor
    owner: Tensor
    dtypes: tuple[torch.dtype, ...]

    @staticmethod
    def of(atoms: Sequence[TaskVector], target: TaskVector, grid: Grid, watch: Callable[[Iterable[str]], Iterable[str]] = iter) -> Sample:
        """Read the rows that are looked at, once."""
        tensors = [name for name in target.shapes if any(name in atom.shapes for atom in atoms)]
        total = sum(math.prod(target.shapes[name]) for name in tensors)
        every = max(-(-total * (len(atoms) + 5) // _HELD), 1)
        parts: list[tuple[Tensor, ...]] = []
        for place, name in enumerate(watch(tensors)):
            chosen = slice(place % min(every, *target.shapes[name][:1] or (1,)), None, every)
            values = grid.base(name)
            base = (values[chosen] if values.shape else values[...]).double().reshape(-1, math.prod(target.shapes[name][1:]))
            change = rows(target.delta(name), chosen)
            merged = torch.stack([_merged(atom, name, chosen, base, values.dtype) for atom in atoms])
            below, above = _interval(base + change, grid.dtype(name))
            owner = torch.full_like(base, place, dtype=torch.int64)
            parts.append((base.flatten(), change.flatten(), below.flatten(), above.flatten(), owner.flatten(), merged.flatten(1)))
        base, change, below, above, owner = (torch.cat([part[place] for part in parts]) for place in range(5))
        merged = torch.cat([part[5] for part in parts], dim=1)
        return Sample(base, change, below, above, merged, owner, tuple(grid.dtype(name) for name in tensors))

    def only(self, atoms: Sequence[int]) -> Sample:
        """The same weights, some of the atoms."""
        return replace(self, atoms=self.atoms[list(atoms)])

    @property
    def figures(self) -> float:
        """The relative error that a coefficient may have from rounding on the way."""
        return max(FIGURES, *(_OF_A_STEP * torch.finfo(dtype).eps for dtype in self.dtypes))

    @property
    def coarseness(self) -> float:
        """The variance of rounding to the grid, a twelfth of the squared step, over the target's squared change."""
        return float((self.below + self.above).square().sum() / 12 / self.change.square().sum())

    def outside(self, coefficients: Matrix) -> Tensor:
        """(w,) how far sum_i c_i V_i lies above (positive) or below (negative) each weight's interval; 0 inside."""
        off = torch.from_numpy(coefficients) @ self.atoms - self.change
        return (off - self.above).clamp_min(0) + (off + self.below).clamp_max(0)

    def fit(self, coefficients: Matrix) -> Matrix:
        """(k,) the coefficients with the least sum of squared distances to the intervals, from a first guess."""
        outside = self.outside(coefficients)
        loss = float(outside.square().sum())
        for _ in range(_STEPS):
            wrong = outside.nonzero()[:, 0]
            if not len(wrong):
                break
            active = self.atoms[:, wrong]
            step = solve((active @ active.T).numpy(), (active @ outside[wrong]).numpy())
            new, shrink = loss, 1.0
            for _ in range(_HALVINGS):
                outside = self.outside(coefficients - shrink * step)
                new = float(outside.square().sum())
                if new <= loss:
                    break
                shrink /= 2
            coefficients = coefficients - shrink * step
            if loss - new <= _STILL * loss:
                break
            loss = new
        return coefficients

    def is_explained(self, coefficients: Matrix) -> bool:
        """Whether the atoms alone, with rounding, explain the target: nearly no weight is out of its interval.

        By more than rounding on the way: products with the weights and their sums are rounded to the grid's figures as well.
        """
        way = torch.tensor([torch.finfo(dtype).eps / 2 for dtype in self.dtypes], dtype=torch.float64)[self.owner]
        way = way * torch.einsum("k,kw->w", torch.from_numpy(np.abs(coefficients)), self.atoms.abs())
        outside = float((self.outside(coefficients).abs() > way).double().mean())
        return outside <= min(_OUTSIDE, _OF_CHANGED * float((self.change != 0).double().mean()))

    def identical(self, coefficients: Matrix, *, computed: torch.dtype | None = None) -> float:
        """The share of the weights that a merge of these components gives exactly.

        Args:
            coefficients: (k,).
            computed: the dtype that products and their sum are rounded to on the way; None where only the result is rounded.
        """
        parts = torch.from_numpy(coefficients)[:, None] * (self.atoms if computed is None else _rounded(self.atoms, computed))
        total = parts.sum(0) if computed is None else _rounded(_rounded(parts, computed).sum(0), computed)
        return float((self._on_grid(self.base + total) == self.base + self.change).double().mean())

    def on_the_grid(self, coefficients: Matrix) -> Matrix | None:
        """(k,) the coefficients rounded to the weights' own dtype, if a merge computed in it gives more of the weights than they do.

        mergekit computes its task arithmetic in the dtype of the merge, and rounds the recipe's weights to it.
        """
        (dtype, *others) = dict.fromkeys(self.dtypes)
        snapped = _rounded(torch.from_numpy(coefficients), dtype).numpy()
        told = not others and self.identical(snapped, computed=dtype) > max(self.identical(coefficients), _IDENTICAL)
        return snapped if told else None

    def interval(self, coefficients: Matrix) -> Matrix:
        """(k, 2) around fitted coefficients.

        The spread over tensors (jackknife) of what lies outside the intervals, and how far each coefficient alone could go without
        taking any weight out of its interval.
        """
        outside, k = self.outside(coefficients), len(coefficients)
        gram, correlation = np.zeros((len(self.dtypes), k, k)), np.zeros((len(self.dtypes), k))
        for place in range(len(self.dtypes)):
            wrong = ((self.owner == place) & (outside != 0)).nonzero()[:, 0]
            active = self.atoms[:, wrong]
            gram[place] = (active @ active.T).numpy()
            correlation[place] = gram[place] @ coefficients - (active @ outside[wrong]).numpy()
        spread = jackknife_interval(gram, correlation, coefficients) if gram.any() else np.stack([coefficients, coefficients], 1)
        off = torch.from_numpy(coefficients) @ self.atoms - self.change
        for place, atom in enumerate(self.atoms):
            up, down = (self.above - off).clamp_min(0), (off + self.below).clamp_min(0)
            moved = atom != 0
            larger = torch.where(atom > 0, up, down)[moved] / atom[moved].abs()
            smaller = torch.where(atom > 0, down, up)[moved] / atom[moved].abs()
            spread[place] += np.array([-float(smaller.min()), float(larger.min())]) if bool(moved.any()) else np.array([-np.inf, np.inf])
        return spread

    def is_trimmed(self, coefficients: Matrix) -> bool:
        """Whether small changes were trimmed, as ties does.

        Rounding leaves as many weights unchanged as it moves by one step either way; a mask leaves more. Those that dare leaves
        are any, those that trimming leaves would have changed less than the others.
        """
        step, size = self.below + self.above, (torch.from_numpy(coefficients) @ self.atoms).abs()
        told = size > 2 * step
        unchanged, moved = told & (self.change == 0), told & (self.change != 0) & (self.change.abs() < 1.5 * step)
        if int(unchanged.sum()) - int(moved.sum()) / 2 < _TRIMMED * int(told.sum()) or not bool((told & ~unchanged).any()):
            return False
        larger = stats.mannwhitneyu(size[told & ~unchanged].numpy(), size[unchanged].numpy(), method="asymptotic")
        return bool(larger.statistic >= _SMALLER * float(unchanged.sum()) * float((told & ~unchanged).sum()))

    def rounding_share(self, coefficients: Matrix) -> float:
        """||round(W + t_hat) - (W + t_hat)||^2 / ||t||^2: what rounding alone would leave of a target made of these components."""
        ideal = self.base + torch.from_numpy(coefficients) @ self.atoms
        return float((self._on_grid(ideal) - ideal).square().sum() / self.change.square().sum())

    def _on_grid(self, values: Tensor) -> Tensor:
        """(w,) weights rounded to their tensors' dtypes."""
        result = torch.zeros_like(values)
        for dtype in dict.fromkeys(self.dtypes):
            here = torch.tensor([other == dtype for other in self.dtypes])[self.owner]
            result[here] = _rounded(values[here], dtype)
        return result


def _merged(atom: TaskVector, tensor: str, chosen: slice, base: Tensor, dtype: torch.dtype) -> Tensor:
    """Some rows of an atom's change after it was added to the base and rounded."""
    if tensor not in atom.shapes:
        return torch.zeros_like(base)
    return _rounded(base + rows(atom.delta(tensor), chosen), dtype) - base


def _rounded(values: Tensor, dtype: torch.dtype) -> Tensor:
    """Rounded to a dtype as a computation in float32 would, in float64."""
    return values.float().to(dtype).double()


def _interval(values: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Half the distance from numbers of a dtype to the next ones below and above."""
    finest = torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps  # also around zero, whose exponent says nothing
    mantissa, exponent = torch.frexp(values.abs())
    step = torch.ldexp(torch.full_like(values, torch.finfo(dtype).eps), exponent - 1)
    step = torch.where(values == 0, finest, step.clamp_min(finest))
    inward = torch.where(mantissa == 0.5, step / 2, step).clamp_min(finest)  # towards zero from a power of two the grid is twice as fine
    down, up = torch.where(values > 0, inward, step), torch.where(values < 0, inward, step)
    return down / 2, up / 2
