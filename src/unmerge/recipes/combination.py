"""Each tensor of a target as a combination of the models in it, which is what every method leaves that masks nothing.

    T - W = sum c_i d_i + s W        d_i = W_i - W, the change that atom i makes

Written in whole models the base has the share 1 + s - sum c_i, and 1 + s is the sum of all shares. The coefficients may differ
from tensor to tensor, or from line to line of a tensor; a method's file turns them into its own settings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import torch
from jaxtyping import Float
from torch import Tensor

from unmerge.recipes.case import Case, half_spacing
from unmerge.recipes.recipe import BASE

#: an entry is explained within this many times half a spacing, for methods round more than once (in bfloat16 the changes themselves
#: are not many times that); and the share that must be
_LOOSE, _EXPLAINED = {torch.bfloat16: 8.0, torch.float16: 8.0, torch.float32: 32.0, torch.float64: 32.0}, 0.95
#: rounds of narrowing down to violated intervals
_STEPS = 6


class Lines(Enum):
    """What has coefficients of its own: a tensor as a whole, its rows or its columns."""

    WHOLE = "whole"
    ROWS = "rows"
    COLUMNS = "columns"

    def of(self, tensor: Tensor) -> Tensor:
        """(lines, entries) in float64."""
        if self is Lines.WHOLE or tensor.ndim == 1:
            return tensor.double().reshape(1, -1)
        if self is Lines.COLUMNS:
            tensor = tensor.transpose(0, -1)
        return tensor.double().reshape(-1, tensor.shape[-1])


@dataclass(frozen=True)
class Combination:
    """One tensor as a combination.

    Attributes:
        coefficients: (lines, n) c, how much of each atom's change.
        stretch: (lines,) s.
        errors: (lines, n) standard errors of the coefficients, of rounding; infinite where the tensor does not tell.
        stretch_errors: (lines,) of the stretch.
        explained: the share of entries that it leaves at most a few roundings of.
    """

    coefficients: Tensor
    stretch: Tensor
    errors: Tensor
    stretch_errors: Tensor
    explained: float

    @property
    def fits(self) -> bool:
        """Whether the target may be such a combination."""
        return self.explained >= _EXPLAINED


def combination(case: Case, atoms: Sequence[str], tensor: str, lines: Lines = Lines.WHOLE) -> Combination:
    """The combination of some atoms that is nearest to a tensor of the target, within its rounding; kept with the case."""
    key = (Combination, tuple(atoms), tensor, lines)
    if key not in case.made_out:
        case.made_out[key] = _combination(case, atoms, tensor, lines)
    found: Combination = case.made_out[key]
    return found


def combines(case: Case, atoms: Sequence[str], lines: Lines = Lines.WHOLE) -> bool:
    """A cheap first look: whether a few tensors of the target are combinations at all."""
    return all(combination(case, atoms, tensor, lines).fits for tensor in case.quick)


def _combination(case: Case, atoms: Sequence[str], tensor: str, lines: Lines) -> Combination:
    base, wanted = case.read(BASE, tensor), case.wanted(tensor)
    before, half = lines.of(base), lines.of(half_spacing(wanted))
    rows = torch.stack([*(lines.of(case.read(atom, tensor)) - before for atom in atoms), before], dim=1)
    target = lines.of(wanted) - before
    found = _solved(rows, target)
    for _ in range(_STEPS):
        off = target - (found[:, None] @ rows)[:, 0]
        over = off.abs() > half
        if bool((over.sum(1) <= 10 * rows.shape[1]).any()):
            break
        found = found + _solved(rows * over[:, None], (off - half * off.sign()) * over)
    off = target - (found[:, None] @ rows)[:, 0]
    scales = rows.square().sum(2).sqrt()
    seen = scales > 1e-9 * scales.max()
    unit = rows / torch.where(seen, scales, 1.0)[:, :, None]
    spread = torch.linalg.inv(unit @ unit.mT + 1e-12 * torch.eye(rows.shape[1])).diagonal(dim1=1, dim2=2).sqrt()
    noise = torch.maximum(off.square().mean(1), half.square().mean(1) / 3).sqrt()
    errors = torch.where(seen, noise[:, None] * spread / scales, torch.inf)
    explained = float((off.abs() <= _LOOSE[case.dtype] * half).double().mean())
    return Combination(found[:, :-1], found[:, -1], errors[:, :-1], errors[:, -1], explained)


def _solved(rows: Float[Tensor, "lines n entries"], target: Float[Tensor, "lines entries"]) -> Float[Tensor, "lines n"]:
    """Least squares line by line; an atom that does nothing has the coefficient 0."""
    products = rows @ rows.mT
    size = products.diagonal(dim1=1, dim2=2).clamp(min=1e-300).sqrt()
    scaled = products / (size[:, :, None] * size[:, None]) + 1e-12 * torch.eye(rows.shape[1])
    found: Tensor = torch.linalg.solve(scaled, (rows @ target[:, :, None])[:, :, 0] / size) / size
    return found
