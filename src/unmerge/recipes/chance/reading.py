"""Masks read off one tensor, and what of the target that explains: bit for bit, with mergekit's own arithmetic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unmerge.recipes.arithmetic import merged, weighed
from unmerge.recipes.case import Case, half_spacing
from unmerge.recipes.chance.masks import BINS, Law, Posterior, Sample, patterns
from unmerge.recipes.recipe import BASE

#: standard deviation that rounding leaves, in half steps of the target's dtype (a uniform error has .58)
NOISE = 0.6
#: relative rounding error of one operation
PRECISION = {torch.bfloat16: 2.0**-9, torch.float16: 2.0**-12, torch.float32: 2.0**-24, torch.float64: 2.0**-53}
#: sums that fill at most this share of the target's grid between the lowest and the highest tell a recipe from another
_TELLING = 0.1


@dataclass(frozen=True)
class Acting:
    """What acted in one tensor, in numbers of its dtype.

    Attributes:
        law: the law, with the tensor's own factors.
        weights: (n,).
        rescales: (n,).
        factor: lambda.
    """

    law: Law
    weights: Tensor
    rescales: Tensor
    factor: float = 1.0


@dataclass(frozen=True)
class Reading:
    """One tensor's masks.

    Attributes:
        mask: (n, N) of the most probable sum among those that are the target, or of the most probable one.
        made: (N,) the merged weights under it, in the target's dtype.
        explained: (N,) where that is the target.
        changed: (N,) where the target differs from the base.
        telling: (N,) where few of the values that the target could have are sums.
    """

    mask: Tensor
    made: Tensor
    explained: Tensor
    changed: Tensor
    telling: Tensor


def changes_of(case: Case, atoms: Sequence[str], tensor: str) -> Tensor:
    """(n, N) changes in the dtype of the merge."""
    return torch.stack([(case.read(atom, tensor) - case.read(BASE, tensor)).reshape(-1) for atom in atoms])


def sample_of(case: Case, atoms: Sequence[str], tensor: str) -> Sample:
    """All entries of a tensor."""
    flat = case.flat(atoms, [tensor])
    width = case.wanted(tensor).shape[-1]
    rows = flat.atoms.abs().reshape(len(atoms), -1, width)
    order = torch.argsort(rows.float(), dim=2)
    bins = torch.empty_like(order).scatter_(2, order, (torch.arange(width) * BINS // width).expand_as(order))
    return Sample(flat.atoms, flat.target, bins.reshape(len(atoms), -1), NOISE * flat.half)


def fineness(case: Case, sample: Sample, tensor: str) -> Tensor:
    """(N,) the base's spacing over the atoms' changes: small where the dtype's grid is fine; infinite where an atom leaves the base."""
    spacing = 2 * half_spacing(case.before(tensor)).reshape(-1)
    return torch.where((sample.changes != 0).all(0), spacing / sample.changes.abs().sum(0).clamp(min=1e-300), torch.inf)


def read_off(case: Case, atoms: Sequence[str], tensor: str, acting: Acting, found: Posterior) -> Reading:
    """The masks of one tensor.

    Args:
        case: target and models.
        atoms: n names.
        tensor: its name.
        acting: what acted.
        found: of all its entries, under that.
    """
    base, wanted = case.read(BASE, tensor).reshape(-1), case.wanted(tensor).reshape(-1)
    kept = weighed(changes_of(case, atoms, tensor), acting.rescales, acting.weights)
    ways = patterns(len(atoms)).to(kept.dtype)
    slack = _slack(case.dtype, wanted, kept)

    def made(places: Tensor, masks: Tensor) -> Tensor:
        return merged(base[places], kept[:, places] * masks, acting.weights, acting.law.rule, acting.factor).to(case.dtype)

    everywhere = torch.arange(len(base))
    chosen = found.near.argmax(0)
    result = made(everywhere, ways[chosen].T)
    explained = (result.double() - wanted.double()).abs() <= slack
    left = torch.nonzero(~explained)[:, 0]
    best = torch.full((len(left),), -1.0, dtype=torch.float64)
    for way, row in enumerate(ways):
        trial = made(left, row[:, None].expand(-1, len(left)))
        better = ((trial.double() - wanted[left].double()).abs() <= slack[left]) & (found.near[way, left] > best)
        best = torch.where(better, found.near[way, left], best)
        chosen[left[better]], result[left[better]], explained[left[better]] = way, trial[better], True
    return Reading(ways[chosen].T.bool(), result, explained, wanted != base.to(case.dtype), telling(case, tensor, found.sums))


def share_explained(case: Case, atoms: Sequence[str], tensor: str, acting: Acting, places: Tensor) -> float:
    """The share of some entries of a tensor that a sum is, to the last bit."""
    base, wanted = case.read(BASE, tensor).reshape(-1)[places], case.wanted(tensor).reshape(-1)[places]
    kept = weighed(changes_of(case, atoms, tensor)[:, places], acting.rescales, acting.weights)
    ways = patterns(len(atoms)).to(kept.dtype)
    every = (kept[:, None, :] * ways.T[:, :, None]).reshape(len(atoms), -1)
    made = merged(base.repeat(len(ways)), every, acting.weights, acting.law.rule, acting.factor).to(case.dtype).reshape(len(ways), -1)
    hit = ((made.double() - wanted.double()).abs() <= _slack(case.dtype, wanted, kept)).any(0)
    return float(hit.double().mean()) if len(places) else 0.0


def _slack(dtype: torch.dtype, wanted: Tensor, kept: Tensor) -> Tensor:
    """(N,) what the order of a sum may move: nothing to speak of in a dtype whose sums are made in a wider one."""
    if dtype in (torch.bfloat16, torch.float16):
        return torch.zeros(len(wanted), dtype=torch.float64)
    return 2 * half_spacing(wanted) + 4 * PRECISION[dtype] * kept.double().abs().sum(0)


def telling(case: Case, tensor: str, sums: Tensor) -> Tensor:
    """(N,) the entries where being one of (2^n, N) sums means something: these fill a small share of the grid between them.

    What the target is there plays no part; entries chosen by it would not be kept as often as others.
    """
    size = case.read(BASE, tensor).reshape(-1).double().abs() + sums.square().mean(0).sqrt()
    return len(sums) * 2 * half_spacing(size.to(case.dtype)) <= _TELLING * (sums.amax(0) - sums.amin(0))
