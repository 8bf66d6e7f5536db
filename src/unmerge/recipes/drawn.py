"""A merge with random masks, recovered: a law learned from where the grid is fine, factors tensor by tensor, masks, settings.

mergekit rescales what is kept of an atom to the L1 norm that the whole had, tensor by tensor: sum |d| / sum |m d|, which the
masks tell. A factor over its rescale is the weight. With weights and rescales as numbers of the dtype the merge is run again,
entry by entry, for every way to keep and drop: what is explained is explained to the last bit.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from unmerge.recipes.case import Case
from unmerge.recipes.decimals import cell, scaled, shortest
from unmerge.recipes.masks import BINS, Law, Sample, by_rank, learn, line, posterior
from unmerge.recipes.reading import PRECISION, Acting, fineness, read_off, sample_of, share_explained
from unmerge.recipes.recipe import BASE
from unmerge.recipes.weights import Rule, least_squares

#: weights that are looked at, entries that a law is begun with and learned from, and those of one tensor
_WEIGHTS, _BEGUN, _LEARNED, _ALONE = 1_000_000, 3_000, 12_000, 2_000
#: relative error of the factors, round by round: of all tensors together, then of one
TOGETHER = (0.3, 0.25, 0.2, 0.2, 0.15, 0.15, 0.1, 0.1, 0.1, 0.07, 0.07, 0.05, 0.05, 0.03, 0.03, 0.03)
_ONE = {torch.bfloat16: (0.02, 0.01, 4e-3, 2e-3, 2e-3), torch.float16: (0.02, 0.01, 3e-3, 5e-4, 3e-4)}
_ONE_WIDE = (0.02, 0.01, 1e-3, 1e-4, 1e-6, 1e-7)
#: shares kept that learning starts from, beside those that the target's spread suggests
_STARTS = (0.5, 0.2, 0.8)
#: weights that rescales are estimated from
_RESCALED = 200_000
#: entries of a tensor that numbers of the dtype are tried on, scales of weights that are tried, and a share that leaves nothing to gain
_TRIED_ON, _SCALES, _ALL = 400, 30, 0.9999
#: scatter of factors over tensors, over what rescales would have by themselves, above which what was kept was rescaled
_SCATTERED = 0.25
#: shares explained, distances from a line over ranks, and a share kept that is all, beyond which no masks were drawn
_EXPLAINED, _STRAIGHT, _WHOLE = 0.95, 0.1, 0.985
#: rounds in which shares kept are learned from all tensors
_SHARED = 5
#: tensors that a law is tried on, the error that factors are allowed there, how much of the range sums may then fill, and the share of
#: entries near a sum below which a law is given up
_TRIED, _NEAR, _TELLS, _HOPEFUL = 4, 5e-4, 0.5, 0.8


@dataclass(frozen=True)
class Drawn:
    """A merge with random masks, as found on the tensors that are held.

    Attributes:
        atoms: names, n of them.
        rule: how kept changes are combined.
        weights: (n,) that acted; under a rule that normalises up to scale.
        typed: the shortest decimals that act so.
        density: (n,) share kept.
        epsilon: (n,) how much likelier than average the largest entries of a row are kept.
        straight: largest distance of the shares kept from a line over ranks.
        factor: lambda, where the rule normalises.
        rescaled: whether what was kept was rescaled.
        acting: by tensor.
        explained: share of the target's changed entries that one of the sums is, to the last bit.
        telling: the same share where few values are sums: where the dtype's grid is fine beside the atoms' changes.
        telling_entries: how many these are.
        error: ||t - t_hat|| / ||t|| with the masks read off.
    """

    atoms: tuple[str, ...]
    rule: Rule
    weights: Tensor
    typed: tuple[float, ...]
    density: Tensor
    epsilon: Tensor
    straight: float
    factor: float
    rescaled: bool
    acting: dict[str, Acting]
    explained: float
    telling: float
    telling_entries: int
    error: float

    @property
    def speaks(self) -> bool:
        """Whether masks like these speak for a merge that draws them: nearly all is explained, and a rank says no more than a line over ranks."""
        return min(self.explained, self.telling) >= _EXPLAINED and self.straight <= _STRAIGHT and bool((self.density < _WHOLE).any())


def drawn(case: Case, atoms: Sequence[str]) -> Drawn | None:
    """Recover a merge with random masks, under the likeliest of the rules; None where nothing comes of it."""
    samples = {tensor: sample_of(case, atoms, tensor) for tensor in looked_at(case)}
    fine = {tensor: fineness(case, sample, tensor) for tensor, sample in samples.items()}
    together = finest(samples, fine, _LEARNED)
    if together.target.numel() < _BEGUN / 2:
        return None
    chosen = {tensor: sample.some(torch.argsort(fine[tensor])[:_ALONE]) for tensor, sample in samples.items() if bool(fine[tensor].isfinite().any())}
    errors = _ONE.get(case.dtype, _ONE_WIDE)
    for starts in (slice(0, 1), slice(1, None)):
        law = likeliest(together, starts)
        tried = {tensor: learn(chosen[tensor], law, errors, shares=False)[0] for tensor in list(chosen)[:: max(1, len(chosen) // _TRIED)]}
        if _fits(case, {tensor: chosen[tensor] for tensor in tried}, tried) >= _HOPEFUL:
            break
    else:
        return None
    alone = {tensor: tried.get(tensor) or learn(sample, law, errors, shares=False)[0] for tensor, sample in chosen.items()}
    alone = _with_shares(case, chosen, alone)
    places = {tensor: torch.argsort(fine[tensor])[:_TRIED_ON] for tensor in alone}
    return _read(case, tuple(atoms), samples, law, _polished(case, atoms, alone, _scales(case, samples, alone), places))


def _with_shares(case: Case, samples: Mapping[str, Sample], laws: Mapping[str, Law]) -> dict[str, Law]:
    """The shares kept that all tensors have in common, learned at each one's own factors."""
    keep = next(iter(laws.values())).keep
    for _ in range(_SHARED):
        counts = [by_rank(sample, posterior(sample, replace(laws[tensor], keep=keep), PRECISION[case.dtype])) for tensor, sample in samples.items()]
        keep = line(*(torch.stack(column).sum(0) for column in zip(*counts, strict=True)))
    return {tensor: replace(law, keep=keep) for tensor, law in laws.items()}


def _fits(case: Case, samples: Mapping[str, Sample], laws: Mapping[str, Law]) -> float:
    """The share of entries that a sum is near to, as near as rounding and a relative error of the factors allow."""
    near, seen = 0, 0
    for tensor, sample in samples.items():
        found = posterior(sample, laws[tensor], max(_NEAR, PRECISION[case.dtype]))
        sums = found.sums
        wide = found.variance.sqrt()
        tells = (6 * wide.sum(0) <= _TELLS * (sums.amax(0) - sums.amin(0))) & (sample.target != 0)
        near += int((((sample.target - sums).abs() <= 3 * wide).any(0) & tells).sum())
        seen += int(tells.sum())
    return near / seen if seen else 0.0


def looked_at(case: Case) -> tuple[str, ...]:
    """Evenly spaced tensors, as many as masks are read off."""
    step = max(1, -(-sum(case.read(BASE, tensor).numel() for tensor in case.tensors) // _WEIGHTS))
    return case.tensors[::step]


def finest(samples: Mapping[str, Sample], fine: Mapping[str, Tensor], count: int) -> Sample:
    """The entries of all tensors where the grid is finest beside the atoms' changes, and every atom changes the base."""
    limit = torch.cat(list(fine.values())).sort().values[:count]
    limit = limit[torch.isfinite(limit)]
    parts = [sample.some(torch.nonzero(fine[tensor] <= limit[-1])[:, 0]) for tensor, sample in samples.items()] if len(limit) else []
    if not parts:
        return next(iter(samples.values())).some(slice(0, 0))
    changes, target, bins, noise = (torch.cat([getattr(part, name) for part in parts], -1) for name in ("changes", "target", "bins", "noise"))
    return Sample(changes, target, bins, noise)


def likeliest(sample: Sample, starts: slice, without: float = 1.0) -> Law:
    """The law that makes a sample most probable: every rule from some of the starts on a part of it, the best on all of it."""
    count = sample.target.numel()
    some = sample.some(slice(0, count, max(1, count // _BEGUN)))
    tried = [learn(some, start, TOGETHER) for rule in Rule for start in list(_starting(some, rule, without))[starts]]
    law = max(tried, key=lambda pair: pair[1])[0]
    return learn(sample, law, TOGETHER[-6:])[0]


def _starting(sample: Sample, rule: Rule, without: float) -> Iterator[Law]:
    """Least squares is unbiased under random masks; how far the target scatters around it says what share was kept."""
    weights = least_squares(sample.changes, sample.target).clamp(min=1e-3)
    left = sample.target - weights @ sample.changes
    spread = least_squares(sample.changes.square(), left.square()) / weights.square()
    ones = torch.ones_like(weights)
    for share in ((1 / (1 + spread.clamp(min=0.01))).clamp(0.05, 0.95), *(share * ones for share in _STARTS)):
        keep = share[:, None].repeat(1, BINS)
        if rule is Rule.NORMALISED:
            yield Law(rule, 1 / share, weights / weights.max(), keep, without, float(left.std()))
        else:
            yield Law(rule, weights / share, ones, keep, without, float(left.std()))


@dataclass(frozen=True)
class _Scale:
    """What all tensors have in common.

    Attributes:
        weights: (n,); under a rule that normalises up to scale.
        loose: (n,) how far from them the true ones may be, relatively.
        factor: lambda.
        rescaled: whether what was kept was rescaled.
    """

    weights: Tensor
    loose: Tensor
    factor: float
    rescaled: bool


def _scales(case: Case, samples: Mapping[str, Sample], alone: Mapping[str, Law]) -> _Scale:
    """Tell weights from rescales: what was kept in some tensors says how it was rescaled there."""
    laws, size = list(alone.values()), 0
    rescales: dict[str, Tensor] = {}
    for tensor in sorted(alone, key=lambda name: (samples[name].target.numel(), name)):
        sample = samples[tensor]
        if rescales and size + sample.target.numel() > _RESCALED:
            break
        size += sample.target.numel()
        kept = posterior(sample, alone[tensor], PRECISION[case.dtype]).kept
        rescales[tensor] = sample.changes.abs().sum(1) / (sample.changes.abs() * kept).sum(1).clamp(min=1e-300)
    ratio = torch.stack(list(rescales.values()))
    factors = torch.stack([alone[tensor].factors for tensor in rescales])
    sizes = torch.tensor([float(samples[tensor].target.numel()) for tensor in alone])
    share = laws[0].keep.mean(1)
    expected = 1.25 * ((1 - share) / share / sizes.median()).sqrt()
    every = torch.stack([law.factors for law in laws])
    rescaled = bool((every.std(0) / every.mean(0) / expected).mean() > _SCATTERED)
    acted = factors / ratio if rescaled else factors
    middle, loose = acted.median(0).values, 3 * _scatter(acted) / len(acted) ** 0.5 + PRECISION[case.dtype]
    if laws[0].rule is not Rule.NORMALISED:
        return _Scale(middle, loose, 1.0, rescaled)
    factor = float(middle.median())
    near = max(float(loose.median()), 1e-3)
    factor = 1.0 if abs(factor - 1) < 3 * near else shortest(factor * (1 - near), factor * (1 + near))
    weights = torch.stack([law.weights for law in laws])
    middle = weights.median(0).values
    return _Scale(middle, 3 * _scatter(weights) / len(weights) ** 0.5 + 2 * PRECISION[case.dtype], factor, rescaled)


def _scatter(rows: Tensor) -> Tensor:
    """(n,) relative spread of (tensors, n), from the median absolute deviation."""
    middle = rows.median(0).values
    return 1.4826 * (rows - middle).abs().median(0).values / middle.abs().clamp(min=1e-300)


@dataclass(frozen=True)
class _Settled:
    """Weights as they may have been typed, and what acted in every tensor."""

    typed: tuple[float, ...]
    rescaled: bool
    acting: Mapping[str, Acting]


def _polished(case: Case, atoms: Sequence[str], alone: Mapping[str, Law], scale: _Scale, places: Mapping[str, Tensor]) -> _Settled:
    """From estimates to numbers of the dtype: those under which most entries are a sum, to the last bit."""
    few = list(alone)[:: max(1, len(alone) // _TRIED)]

    def acting(tensor: str, typed: Sequence[float]) -> Acting:
        weights, law = torch.tensor(typed, dtype=torch.float64).to(case.dtype), alone[tensor]
        rescales = law.factors / (scale.factor if law.rule is Rule.NORMALISED else weights.double()) if scale.rescaled else torch.ones(len(atoms))
        return Acting(law, weights, rescales.to(case.dtype), scale.factor)

    def share(typed: Sequence[float]) -> float:
        return sum(share_explained(case, atoms, tensor, acting(tensor, typed), places[tensor]) for tensor in few) / len(few)

    values = [float(value) for value in scale.weights]
    if next(iter(alone.values())).rule is Rule.NORMALISED:
        tolerance = max(float(scale.loose.max()), 1e-6)
        likely = [*itertools.islice(scaled(values, tolerance), _SCALES if case.dtype in _ONE else 1), tuple(values)]
        typed = max(likely, key=share) if case.dtype in _ONE else likely[0]
    else:
        typed = tuple(shortest(value * (1 - width), value * (1 + width)) for value, width in zip(values, scale.loose.tolist(), strict=True))
        typed = _coordinates(typed, values, scale.loose.tolist(), case.dtype, share) if case.dtype in _ONE else typed
    return _Settled(typed, scale.rescaled, {tensor: _stepped(case, atoms, tensor, acting(tensor, typed), places[tensor]) for tensor in alone})


def _coordinates(
    typed: tuple[float, ...], values: Sequence[float], loose: Sequence[float], dtype: torch.dtype, share: Callable[[Sequence[float]], float]
) -> tuple[float, ...]:
    """Weights near to estimates in a narrow dtype, one after the other."""
    best = share(typed)
    for _ in range(2):
        for place, (value, width) in enumerate(zip(values, loose, strict=True)):
            span = max(width, 4 * PRECISION[dtype])
            grid = sorted(set((value * torch.linspace(1 - span, 1 + span, 17, dtype=torch.float64)).to(dtype).tolist()))
            for other in grid:
                if best >= _ALL:
                    return typed
                changed = (*typed[:place], shortest(*cell(other, dtype)), *typed[place + 1 :])
                if (found := share(changed)) > best:
                    typed, best = changed, found
    return typed


def _stepped(case: Case, atoms: Sequence[str], tensor: str, acting: Acting, places: Tensor) -> Acting:
    """Rescales in a narrow dtype, moved by a step of it where more entries then are a sum."""
    best = share_explained(case, atoms, tensor, acting, places)
    if case.dtype not in _ONE:
        return acting
    for place in range(len(atoms)):
        for towards in (0.0, torch.inf):
            if best >= _ALL:
                return acting
            rescales = acting.rescales.clone()
            rescales[place] = torch.nextafter(rescales[place], torch.tensor(towards, dtype=case.dtype))
            changed = replace(acting, rescales=rescales)
            if (found := share_explained(case, atoms, tensor, changed, places)) > best:
                acting, best = changed, found
    return acting


def _read(case: Case, atoms: tuple[str, ...], samples: Mapping[str, Sample], law: Law, settled: _Settled) -> Drawn:
    counts, off, norm = torch.zeros(4), 0.0, 0.0
    acting = dict(settled.acting)
    kept, seen = torch.zeros_like(law.keep), torch.zeros_like(law.keep)
    for tensor, sample in samples.items():
        if tensor not in acting:  # an atom leaves this tensor as it is
            acting[tensor] = _typical(acting, law)
        found = posterior(sample, acting[tensor].law, PRECISION[case.dtype])
        reading = read_off(case, atoms, tensor, acting[tensor], found)
        told = reading.telling & reading.changed
        counts += torch.stack([(reading.explained & reading.changed).sum(), reading.changed.sum(), (reading.explained & told).sum(), told.sum()])
        base = case.read(BASE, tensor).reshape(-1).double()
        off += float((reading.made.double() - base - sample.target).square().sum())
        norm += float(sample.target.square().sum())
        use = torch.nonzero(reading.telling & (sample.changes != 0).all(0))[:, 0]
        here = by_rank(sample.some(use), found.some(use))
        kept, seen = kept + here[0], seen + here[1]
    shares = line(kept, seen)
    first = next(iter(acting.values()))
    return Drawn(
        atoms=atoms,
        rule=law.rule,
        weights=first.weights.double(),
        typed=settled.typed,
        density=(shares[:, 0] + shares[:, -1]) / 2,
        epsilon=(shares[:, -1] - shares[:, 0]) / 2 * BINS / (BINS - 1),
        straight=float((((kept / seen.clamp(min=1) - shares).abs() - 2 / seen.sqrt()) * (seen > 0)).max()),
        factor=first.factor,
        rescaled=settled.rescaled,
        acting=acting,
        explained=float(counts[0] / counts[1].clamp(min=1)),
        telling=float(counts[2] / counts[3].clamp(min=1)),
        telling_entries=int(counts[3]),
        error=(off / norm) ** 0.5 if norm else 0.0,
    )


def _typical(acting: Mapping[str, Acting], law: Law) -> Acting:
    first = next(iter(acting.values()))
    middle = torch.stack([other.rescales.double() for other in acting.values()]).median(0).values
    return replace(first, law=law, rescales=middle.to(first.rescales.dtype))
