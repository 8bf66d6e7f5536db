"""A rounded target as it was before it was rounded, as far as its cells tell: grouped-data regression.

Beside something unknown no order of rounding gives the weights, and least squares on changes of about a step of the grid shrinks. With
x = sum_i c_i d_i + r before the rounding, r ~ N(0, sigma^2) in each row, the cell that a weight lies in gives the mean of r there
(Sheppard 1898 for wide r, Tallis 1961 for the truncated normal law), and

    z = sum_i c_i d_i + E[r | cell] / l,    l = 1 - E[var(r | cell)] / sigma^2

holds r in full, plus noise that is orthogonal to the atoms at the right c: E[r | cell] is r shrunk by l. So what is unknown has its
rank in z, and can be projected off as in a target that was never rounded. c follows from z, and z from c, until both are still.

Where atoms were rounded before something else was added, that error is known from c and taken off. Which order it was is told by the
likelihood of the cells.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import EllipsisType

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from unmerge.certificate.float_grid import cell, rounded
from unmerge.certificate.refined import Refined
from unmerge.certificate.rounding import Sample
from unmerge.certificate.rounding_order import TOGETHER, Order, orders_beside_others
from unmerge.certificate.systems import solve
from unmerge.vectors import Delta, Rows, Shape, Skipped, Subtracted, TaskVector
from unmerge.vectors.entries import rows

Matrix = NDArray[np.float64]

Project = Callable[[TaskVector, Matrix], tuple[Matrix, Refined]]

#: rounds of sigma from the cells and the cells' means from sigma. Of changes of half a step each brings half of what is missing
_ROUNDS = 8
#: turns of coefficients and target; the relative change below which both are still; and how far coefficients may go, relative to the largest
_TURNS, _STILL, _AWAY = 8, 1e-3, 0.5
#: weights on which orders are compared, and how much likelier (natural logarithm) an order must make their cells than simpler ones
_COMPARED, _LIKELIER = 60_000, 10.0
#: columns that a row's sigma is told from
_TELLING = 512
#: a cell that holds less of the normal law than this is so far out that its nearer end is taken
_FAR = 1e-12
#: E[r | cell] is never stretched by more than this
_MOST = 20.0


def settled(atoms: Sequence[TaskVector], target: TaskVector, sample: Sample, start: Matrix, project: Project) -> tuple[Refined, Order] | None:
    """Project what is unknown off a target as it was before it was rounded, until coefficients and target agree.

    Args:
        atoms: the k components.
        target: the target.
        sample: its weights, which tell the grid that each tensor lies on.
        start: (k,) a first guess.
        project: projects what is unknown off a target, from a guess of the coefficients: (k,) new ones, and what was found on the way.

    Returns:
        The last projection, and the order in which the components were rounded; None where the coefficients ran away.
    """
    if sample.source is None:
        return None
    grids = dict(zip(sample.tensors, sample.grids, strict=True))
    order, (coefficients, found) = likeliest(sample.thinned(_COMPARED), start), (start, None)
    for _ in range(_TURNS):
        new, found = project(Unrounded(target, atoms, tuple(coefficients.tolist()), sample.source.base, grids, order), coefficients)
        moved, coefficients = np.abs(new - coefficients).max(), new
        if np.abs(coefficients - start).max() > _AWAY * np.abs(start).max():
            return None
        if moved <= _STILL * np.abs(coefficients).max():
            break
    return (found, order) if found else None


@dataclass(frozen=True)
class Unrounded:
    """A task vector that gives another one's matrices as they were before they were rounded; its other tensors as they are.

    Attributes:
        target: the rounded one.
        atoms: the k components.
        coefficients: of them.
        base: a tensor of the base, to be read by rows.
        grids: by tensor, the dtype that the target's values lie on; tensors that are not here are left as they are.
        order: in which the components were rounded.
    """

    target: TaskVector
    atoms: Sequence[TaskVector]
    coefficients: tuple[float, ...]
    base: Callable[[str], Rows]
    grids: Mapping[str, torch.dtype]
    order: Order = TOGETHER

    @property
    def name(self) -> str:
        return self.target.name

    @property
    def shapes(self) -> Mapping[str, Shape]:
        return self.target.shapes

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        return self.target.skipped

    def delta(self, tensor: str) -> Delta:
        if tensor not in self.grids or len(self.target.shapes[tensor]) != 2:
            return self.target.delta(tensor)
        base = self.base(tensor)
        known = [atom.delta(tensor) if tensor in atom.shapes else None for atom in self.atoms]
        return Subtracted(_UnroundedRows(self.target.delta(tensor), known, np.array(self.coefficients), base, self.grids[tensor], self.order), base)


@dataclass(frozen=True)
class _UnroundedRows:
    """Weights before the rounding, some rows at a time."""

    change: Delta
    known: Sequence[Delta | None]
    coefficients: Matrix
    base: Rows
    grid: torch.dtype
    order: Order

    @property
    def shape(self) -> torch.Size:
        return torch.Size(self.change.shape)

    @property
    def dtype(self) -> torch.dtype:
        return torch.float32

    @property
    def is_huge(self) -> bool:
        return not isinstance(self.base, Tensor) and self.base.is_huge

    def __getitem__(self, block: slice | EllipsisType) -> Tensor:
        some = slice(None) if isinstance(block, EllipsisType) else block
        base = self.base[some].double()
        atoms = torch.stack([torch.zeros_like(base) if delta is None else rows(delta, some) for delta in self.known])
        change = rows(self.change, some)
        below, above = cell(base + change, self.grid)
        rest = base + change - self.order.beside_others(_Block(base, atoms, self.grid, self.base.dtype), self.coefficients)
        known = torch.einsum("k,kij->ij", torch.from_numpy(self.coefficients), atoms)
        return (base + known + unrounded(rest - below, rest + above)).float()


@dataclass(frozen=True)
class _Block:
    """Some rows of one tensor, as ``rounding_order`` takes weights."""

    base: Tensor
    atoms: Tensor
    grid: torch.dtype
    stored: torch.dtype

    def on_grid(self, values: Tensor) -> Tensor:
        return rounded(values, self.grid)

    def on_base_grid(self, values: Tensor) -> Tensor:
        return rounded(values, self.stored)

    def acting(self, coefficients: Matrix) -> Matrix:
        return coefficients


def likeliest(sample: Sample, start: Matrix) -> Order:
    """The order of rounding that makes the cells likeliest, what is unknown being normal with one variance in each tensor."""
    (below, above), owner = sample.cells(), sample.owner.long()
    count = torch.bincount(owner, minlength=len(sample.grids)).clamp_min(1)
    gram = (sample.atoms @ sample.atoms.T).numpy()
    best, likelihood = TOGETHER, -math.inf
    rounds_base = bool((sample.on_grid(sample.base) != sample.base).any())
    for order in orders_beside_others(len(start), rounds_base=rounds_base):
        coefficients, sigma, now = start, None, -math.inf
        for _ in range(_TURNS):
            rest = sample.target - order.beside_others(sample, coefficients)
            if sigma is None:
                sigma = (torch.bincount(owner, rest.square(), len(count)) / count).sqrt().clamp_min(1e-12)
            wide = sigma[owner]
            low, high = (rest - below) / wide, (rest + above) / wide
            mean, variance = truncated(low, high)
            now = float(mass_between(low, high).clamp_min(_FAR).log().sum())
            coefficients = coefficients + solve(gram, (sample.atoms @ (wide * mean)).numpy())
            sigma = sigma * (torch.bincount(owner, mean.square() + variance, len(count)) / count).sqrt().clamp_min(1e-3)
        if now > likelihood + _LIKELIER:
            best, likelihood = order, now
    return best


def unrounded(low: Float[Tensor, "rows columns"], high: Float[Tensor, "rows columns"]) -> Float[Tensor, "rows columns"]:
    """E[r | cell] / l of every entry from the ends of its cell, r being normal around 0 with one variance in each row."""
    every = max(low.shape[1] // _TELLING, 1)
    ends = low[:, ::every], high[:, ::every]
    sigma = ((ends[0] + ends[1]) / 2).square().mean(1, keepdim=True).sqrt().clamp_min(torch.finfo(low.dtype).tiny)
    kept = torch.ones_like(sigma)
    for _ in range(_ROUNDS):
        mean, variance = truncated(ends[0] / sigma, ends[1] / sigma)
        kept = 1 - variance.mean(1, keepdim=True)
        sigma = sigma * (mean.square() + variance).mean(1, keepdim=True).sqrt().clamp_min(1e-3)
    return sigma * truncated(low / sigma, high / sigma)[0] / kept.clamp_min(1 / _MOST)


def truncated(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of the standard normal law between two ends (Tallis 1961)."""
    swap = low + high < 0  # on the right side of the law its tail is exact
    low, high = torch.where(swap, -high, low), torch.where(swap, -low, high)
    mass = mass_between(low, high)
    near, far = (torch.exp(-end.square() / 2) / math.sqrt(2 * math.pi) for end in (low, high))
    out = mass < _FAR
    mass = mass.clamp_min(_FAR)
    mean = torch.where(out, low, (near - far) / mass)
    variance = torch.where(out, torch.zeros_like(mass), 1 + (low * near - high * far) / mass - mean.square()).clamp(0, 1)
    mean = torch.minimum(torch.maximum(mean, low), high)
    return torch.where(swap, -mean, mean), variance


def mass_between(low: Tensor, high: Tensor) -> Tensor:
    """What the standard normal law has between two ends."""
    swap = low + high < 0  # on the right side of the law its tail is exact
    low, high = torch.where(swap, -high, low), torch.where(swap, -low, high)
    return (torch.erfc(low * math.sqrt(0.5)) - torch.erfc(high * math.sqrt(0.5))) / 2
