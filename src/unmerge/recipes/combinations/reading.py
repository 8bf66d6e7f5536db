"""Random masks on factors, read off entry by entry: which of the 2^n sums is the target?

The law is PEFT's: one density for all, no rescale that depends on the masks, signs elected by what is kept. Expectation-
maximisation finds coefficients and the density from a share of zeros that only (1 - density)^n makes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from unmerge.recipes.combinations.kind import Kind
from unmerge.recipes.combinations.looks import Piece
from unmerge.recipes.masks import patterns
from unmerge.recipes.weights import least_squares, within_rounding

#: relative error of the coefficients, round by round
_ROUNDS = (0.3, 0.2, 0.15, 0.1, 0.1, 0.07, 0.05, 0.05, 0.03, 0.03, 0.02, 0.02, 0.01, 3e-3, 1e-3, 1e-4, 1e-5, 0.0)
#: densities stay away from 0 and 1
_EDGE = 1e-3
#: rounds in which a density settles
_SETTLING = 5
#: entries of each side that coefficients are learned from
_LEARNED = 15_000


@dataclass(frozen=True)
class Side:
    """All factors of one side, flat.

    Attributes:
        raw: (n, N) of the atoms.
        scale: (n, N) what a part of each is multiplied by, beside its coefficient.
        target: (N,).
        half: (N,) half the distance between values of the target's dtype.
    """

    raw: Tensor
    scale: Tensor
    target: Tensor
    half: Tensor

    @staticmethod
    def of(pieces: Sequence[Piece], side: str) -> Side:
        """The entries that some atom changes."""
        here = [piece for piece in pieces if piece.side == side]
        raw = torch.cat([piece.raw.flatten(1) for piece in here], 1)
        scale = torch.cat([piece.scale[:, None].expand(-1, piece.target.numel()) for piece in here], 1)
        half = [torch.zeros_like(piece.target) if piece.half is None else piece.half for piece in here]
        return Side(raw, scale, torch.cat([piece.target for piece in here]), torch.cat(half)).some((raw != 0).any(0).nonzero()[:, 0])

    def some(self, places: Tensor) -> Side:
        """The chosen entries only."""
        return Side(self.raw[:, places], self.scale[:, places], self.target[places], self.half[places])


@dataclass(frozen=True)
class Law:
    """How the entries of a target are drawn.

    Attributes:
        kind: what is done with kept entries.
        density: the share kept.
        coefficients: (n,) for each side, of a kept entry that stands alone.
    """

    kind: Kind
    density: float
    coefficients: dict[str, Tensor]


@dataclass(frozen=True)
class Reading:
    """One side read off.

    Attributes:
        mask: (n, N) of the most probable way.
        made: (N,) what it makes.
        kept: (n,) expected number of kept entries of each atom, where it has any.
        tolerance: (N,) how far rounding may have moved the target from it.
        trusted: (N,) where it is as near as rounding and the coefficients' error allow.
        likelihood: the logarithm of all entries' probability.
    """

    mask: Tensor
    made: Tensor
    kept: Tensor
    tolerance: Tensor
    trusted: Tensor
    likelihood: float


def read(side: Side, law: Law, coefficients: Tensor, precision: float, error: float = 0.0) -> Reading:
    """The most probable way to keep and drop, entry by entry.

    Args:
        side: atoms and target.
        law: kind and density.
        coefficients: (n,) of this side.
        precision: relative rounding error of one operation.
        error: relative error of the coefficients.
    """
    ways = patterns(len(side.raw))
    sums = torch.stack([_sum(side, law.kind, coefficients, way[:, None].expand_as(side.raw)) for way in ways])
    size = (coefficients[:, None] * side.scale * side.raw).abs()
    tolerance = side.half * (1 + 1e-6) + 3 * precision * size.sum(0)
    variance = (0.6 * tolerance).square() + error**2 * size.square().sum(0) + 1e-300
    counted = ways.sum(1, keepdim=True)
    score = counted * torch.log(torch.tensor(law.density)) + (len(side.raw) - counted) * torch.log(torch.tensor(1 - law.density))
    score = score - 0.5 * (side.target - sums).square() / variance - 0.5 * variance.log()
    total = torch.logsumexp(score, 0)
    chosen = score.argmax(0)
    kept = (ways.T @ (score - total).exp() * (side.raw != 0)).sum(1)
    made = sums.gather(0, chosen[None])[0]
    trusted = (side.target - made).abs() <= 3 * tolerance + 4 * error * size.square().sum(0).sqrt()
    return Reading(ways[chosen].T.bool(), made, kept, tolerance, trusted, float(total.sum()))


def learn(sides: dict[str, Side], kind: Kind, precision: float) -> Law:
    """Coefficients and density from some entries of each side."""
    some = {name: side.some(torch.arange(0, side.target.numel(), max(1, side.target.numel() // _LEARNED))) for name, side in sides.items()}
    law = _start(some, kind)
    for error in _ROUNDS:
        readings = {name: read(side, law, law.coefficients[name], precision, error) for name, side in some.items()}
        law = _updated(some, law, readings)
    return law


def settled(sides: dict[str, Side], law: Law, precision: float) -> Law:
    """The law on all entries: every sum within the rounding of its entry, and the density that makes itself expected."""
    for _ in range(_SETTLING):
        coefficients, kept = {}, 0.0
        for name, side in sides.items():
            reading = read(side, law, law.coefficients[name], precision)
            rows = (law.kind.parts(side.raw, reading.mask.double()) * side.scale)[:, reading.trusted]
            found = within_rounding(rows, side.target[reading.trusted], reading.tolerance[reading.trusted])
            coefficients[name] = torch.where(torch.isfinite(found), found, law.coefficients[name])
            kept += float(reading.kept.sum())
        law = replace(law, density=min(max(kept / _changes(sides), _EDGE), 1 - _EDGE), coefficients=coefficients)
    return law


def density_error(sides: dict[str, Side], law: Law) -> float:
    """The standard error of a density that is counted."""
    return math.sqrt(law.density * (1 - law.density) / _changes(sides))


def explained(sides: dict[str, Side], law: Law, precision: float) -> tuple[float, float, float]:
    """How well the sums explain the target.

    Returns:
        (the share of the entries that are not zero and that one of the sums explains within rounding, ||t - t_hat|| / ||t||,
        log-likelihood).
    """
    near = counted = 0
    left = norm = likelihood = 0.0
    for name, side in sides.items():
        reading = read(side, law, law.coefficients[name], precision)
        likelihood += reading.likelihood
        off, moved = (side.target - reading.made).abs(), side.target != 0
        near, counted = near + int((off <= reading.tolerance)[moved].sum()), counted + int(moved.sum())
        left, norm = left + float(off.square().sum()), norm + float(side.target.square().sum())
    return near / max(counted, 1), (left / norm) ** 0.5 if norm else 0.0, likelihood


def _sum(side: Side, kind: Kind, coefficients: Tensor, mask: Tensor) -> Tensor:
    total: Tensor = (coefficients[:, None] * side.scale * kind.parts(side.raw, mask)).sum(0)
    return total


def _start(sides: dict[str, Side], kind: Kind) -> Law:
    """The density from the share of zeros; coefficients by least squares on what is kept on average."""
    n = len(next(iter(sides.values())).raw)
    whole = torch.cat([side.target[(side.raw != 0).all(0)] for side in sides.values()])
    density = min(max(1 - float((whole == 0).double().mean()) ** (1 / n), 0.03), 0.97) if len(whole) else 0.5
    ways = patterns(n)
    coefficients = {}
    for name, side in sides.items():
        share = density ** ways.sum(1) * (1 - density) ** (n - ways.sum(1))
        rows = torch.zeros_like(side.raw)
        for way, weight in zip(ways, share, strict=True):
            rows += weight * kind.parts(side.raw, way[:, None].expand_as(side.raw))
        coefficients[name] = least_squares(rows * side.scale, side.target)
    return Law(kind, density, coefficients)


def _updated(sides: dict[str, Side], law: Law, readings: dict[str, Reading]) -> Law:
    coefficients = {}
    for name, side in sides.items():
        reading, before = readings[name], law.coefficients[name]
        near = reading.trusted
        rows = (law.kind.parts(side.raw, reading.mask.double()) * side.scale)[:, near]
        found = least_squares(rows / reading.tolerance[near], side.target[near] / reading.tolerance[near])
        usable = torch.isfinite(found) & ((rows != 0).sum(1) > 10)
        coefficients[name] = torch.where(usable, found, before)
    density = sum(float(reading.kept.sum()) for reading in readings.values()) / _changes(sides)
    return replace(law, density=min(max(density, _EDGE), 1 - _EDGE), coefficients=coefficients)


def _changes(sides: dict[str, Side]) -> float:
    """How many entries of atoms there are to keep or drop."""
    return sum(float((side.raw != 0).sum()) for side in sides.values())
