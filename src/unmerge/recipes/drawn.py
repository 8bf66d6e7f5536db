"""A merge with random masks, recovered: factors by expectation-maximisation, masks by reading them off, then the settings.

mergekit rescales what is kept of an atom to the L1 norm that the whole had, tensor by tensor: sum |d| / sum |m d|, which the
masks tell. A factor over its rescale is the weight.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from unmerge.recipes.case import Case, Flat
from unmerge.recipes.decimals import shortest
from unmerge.recipes.masks import BINS, Mixture, Reading, learn, read, settle
from unmerge.recipes.weights import Rule, Weighing, least_squares

#: entries that factors are learned from, and relative rounding errors
_LEARNED = 20_000
_PRECISION = {torch.bfloat16: 2.0**-9, torch.float16: 2.0**-12, torch.float32: 2.0**-24, torch.float64: 2.0**-53}
#: relative scatter of the rescale over tensors, and a share explained with it that makes other starts needless
_RESCALE, _ENOUGH = 0.02, 0.98
#: shares kept that learning starts from, beside those that the target's spread suggests
_STARTS = (0.15, 0.4, 0.7)


@dataclass(frozen=True)
class Drawn:
    """A merge with random masks, as found on the tensors that are held.

    Attributes:
        atoms: names, n of them.
        rule: how kept changes are combined.
        weights: (n,); under a rule that normalises up to scale, the largest 1.
        weight_error: (n,) standard errors.
        density: (n,) share kept.
        epsilon: (n,) how much likelier than average the largest entries of a row are kept.
        factor: lambda, where the rule normalises.
        rescaled: whether what was kept was rescaled.
        mixtures: by tensor, with its own factors.
        explained: share of the target's changed entries that one of the sums explains within rounding.
        error: ||t - t_hat|| / ||t|| with the masks read off.
        likelihood: mean log-likelihood of an entry.
    """

    atoms: tuple[str, ...]
    rule: Rule
    weights: Tensor
    weight_error: Tensor
    density: Tensor
    epsilon: Tensor
    factor: float
    rescaled: bool
    mixtures: dict[str, Mixture]
    explained: float
    error: float
    likelihood: float


def drawn(case: Case, atoms: Sequence[str]) -> Drawn | None:
    """Recover a merge with random masks, under the likeliest of the rules; None where nothing comes of it."""
    flat = case.flat(atoms, case.enough)
    bins = row_ranks(case, flat)
    precision = _PRECISION[case.dtype]
    moved = torch.nonzero((flat.atoms != 0).any(0))[:, 0]
    if len(moved) < 100:
        return None
    chosen = moved[:: max(1, len(moved) // _LEARNED)]
    sample, sample_bins = flat.some(chosen), bins[:, chosen]
    mixture, likelihood = None, -torch.inf
    for starts in (slice(0, 1), slice(1, None)):
        for rule in Rule:
            for start in _starting(sample, rule)[starts]:
                learned, found = learn(sample, sample_bins, start, precision)
                if found > likelihood and bool(torch.isfinite(learned.factors).all()):
                    mixture, likelihood = learned, found
        if mixture is not None and _explained(sample, sample_bins, mixture, precision) > _ENOUGH:
            break
    return None if mixture is None else _by_tensor(flat, bins, tuple(atoms), mixture, precision)


def _explained(flat: Flat, bins: Tensor, mixture: Mixture, precision: float) -> float:
    """Share of changed entries that a sum explains within the rescale's scatter over tensors."""
    reading = read(flat, bins, mixture, _RESCALE, precision)
    return float(reading.trusted[flat.target != 0].double().mean())


def row_ranks(case: Case, flat: Flat) -> Tensor:
    """(n, N) the step of each entry's rank by magnitude within its row."""
    bins = torch.zeros_like(flat.atoms, dtype=torch.int64)
    for tensor, part in flat.parts.items():
        width = case.wanted(tensor).shape[-1]
        rows = flat.atoms[:, part].abs().reshape(len(flat.atoms), -1, width)
        rank = torch.argsort(torch.argsort(rows, dim=2), dim=2)
        bins[:, part] = (rank * BINS // width).reshape(len(flat.atoms), -1)
    return bins


def _starting(flat: Flat, rule: Rule) -> list[Mixture]:
    """Least squares is unbiased under random masks; how far the target scatters around it says what share was kept."""
    weights = least_squares(flat.atoms, flat.target).clamp(min=1e-3)
    squares = flat.atoms.square()
    spread = least_squares(squares, (flat.target - weights @ flat.atoms).square()) / weights.square()
    shares = [(1 / (1 + spread.clamp(min=0.01))).clamp(0.03, 0.97)] + [torch.full_like(weights, share) for share in _STARTS]
    found = []
    for share in shares:
        keep = share[:, None].expand(-1, BINS).clone()
        if rule is Rule.NORMALISED:
            found.append(Mixture(Weighing(rule, weights / weights.max()), 1 / share, keep))
        else:
            found.append(Mixture(Weighing(rule, weights / share), torch.ones_like(weights), keep))
    return found


def _by_tensor(flat: Flat, bins: Tensor, atoms: tuple[str, ...], mixture: Mixture, precision: float) -> Drawn:
    mixtures: dict[str, Mixture] = {}
    readings: dict[str, Reading] = {}
    ratios, weights, sizes = [], [], []
    for tensor, part in flat.parts.items():
        here = replace(flat.some(torch.arange(part.start, part.stop)), parts={tensor: slice(0, part.stop - part.start)})
        if not bool((here.atoms != 0).any(1).all()):
            mixtures[tensor], readings[tensor] = mixture, read(here, bins[:, part], mixture, 0.0, precision)
            continue
        mixtures[tensor], readings[tensor] = settle(here, bins[:, part], mixture, precision)
        whole, left = here.atoms.abs().sum(1), (here.atoms.abs() * readings[tensor].kept).sum(1)
        ratios.append(whole / left.clamp(min=1e-300))
        weights.append(mixtures[tensor].weighing.weights)
        sizes.append(mixtures[tensor].factors)
    kept = torch.cat([readings[tensor].kept for tensor in flat.parts], 1)
    ratio, factors, found = (torch.stack(rows) for rows in (ratios, sizes, weights))
    plain, rescaled = _scatter(factors), _scatter(factors / ratio)
    is_rescaled = bool(rescaled.mean() <= plain.mean())
    factor = 1.0
    if mixture.weighing.rule is Rule.NORMALISED:
        factor = float((factors / ratio if is_rescaled else factors).median())
    else:
        found = factors / ratio if is_rescaled else factors
    made, tolerance = (torch.cat([getattr(readings[tensor], name) for tensor in flat.parts]) for name in ("made", "tolerance"))
    off, moved = (flat.target - made).abs(), flat.target != 0
    density, epsilon = _kept_by_rank(flat, bins, kept)
    return Drawn(
        atoms=atoms,
        rule=mixture.weighing.rule,
        weights=found.median(0).values,
        weight_error=_scatter(found) * found.median(0).values / len(found) ** 0.5,
        density=density,
        epsilon=epsilon,
        factor=factor,
        rescaled=is_rescaled,
        mixtures=mixtures,
        explained=float((off <= tolerance)[moved].double().mean()),
        error=float(off.norm() / flat.target.norm()),
        likelihood=sum(readings[tensor].likelihood * (part.stop - part.start) for tensor, part in flat.parts.items()) / flat.target.numel(),
    )


def _scatter(rows: Tensor) -> Tensor:
    """(n,) relative spread of (tensors, n), from the median absolute deviation."""
    middle = rows.median(0).values
    return 1.4826 * (rows - middle).abs().median(0).values / middle.abs().clamp(min=1e-300)


def _kept_by_rank(flat: Flat, bins: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
    """(n,) density and epsilon of keep = density - epsilon + 2 epsilon x rank, least squares over all entries that are not 0."""
    density, epsilon = [], []
    for changes, where, probability in zip(flat.atoms, bins, kept, strict=True):
        there = changes != 0
        rank = (where[there].double() + 0.5) / BINS * 2 - 1
        rows = torch.stack([torch.ones_like(rank), rank])
        level, slope = least_squares(rows, probability[there])
        density.append(level)
        epsilon.append(slope)
    return torch.stack(density), torch.stack(epsilon)


def typed_share(value: float, entries: int) -> float:
    """The shortest decimal that a share measured on so many entries may have been."""
    slack = 4 * (max(value * (1 - value), 1e-4) / entries) ** 0.5 + 1e-3
    return shortest(max(value - slack, 0.0), min(value + slack, 1.0))


def explained(case: Case, atoms: Sequence[str], mixtures: dict[str, Mixture]) -> float:
    """The share of changed entries that a sum of some atoms' changes explains within rounding, at given factors."""
    hits = moved = 0
    precision = _PRECISION[case.dtype]
    for tensor, mixture in mixtures.items():
        flat = case.flat(atoms, [tensor])
        reading = read(flat, row_ranks(case, flat), mixture, 0.0, precision)
        changed = flat.target != 0
        hits += int((((flat.target - reading.made).abs() <= reading.tolerance) & changed).sum())
        moved += int(changed.sum())
    return hits / max(moved, 1)
