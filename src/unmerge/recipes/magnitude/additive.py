"""What the methods of mergekit's task-arithmetic family have in common, where masks are decided by magnitude.

delta_i = W_i - W_0; keep by magnitude; rescale or not; times w_i; elect a sign or not; sum; divide by the weights of what agrees or not;
times lambda
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unmerge.recipes.arithmetic import rescale
from unmerge.recipes.case import Case, Flat
from unmerge.recipes.magnitude.bands import Band, Ranked
from unmerge.recipes.magnitude.numbers import Numbers, typed
from unmerge.recipes.magnitude.sums import Sums
from unmerge.recipes.recipe import BASE, Input, Recipe
from unmerge.recipes.weights import Rule, Weighing, fit

#: entries that a first look takes
_COARSE = 8_000
#: what counts as a large residual, over the target's size: at first, and while bands are made sharper with so many entries
_ROUGH, _SHARPER = 0.3, ((0.3, _COARSE), (0.05, None))
#: the share of the squared change that a first look and a candidate may leave
_FIRST, _UNEXPLAINED = 0.2, 0.02
#: how much more than the best another rule may leave and still be looked at, and what rounding alone may leave
_FACTOR, _ROUNDED = 5.0, 1e-4
#: a share of identical weights that makes other rules needless
_IDENTICAL = 0.9995


@dataclass(frozen=True)
class Fit:
    """Bands and weights under one rule.

    Attributes:
        bands: of every atom; none where nothing is dropped.
        rescaled: whether what was kept was rescaled to the L1 norm that the whole had.
        weighing: weights.
        left: share of the target's squared change that is not explained, beyond rounding.
    """

    bands: tuple[Band, ...]
    rescaled: bool
    weighing: Weighing
    left: float


def by_magnitude(case: Case, atoms: Sequence[str], method: str, rules: Sequence[Rule], sparsified: bool, outliers: bool) -> Iterator[Recipe]:
    """The recipe of one method of the family.

    Args:
        case: target and models.
        atoms: those that are in the target.
        method: as mergekit names it.
        rules: how it may combine what is kept, mergekit's default first.
        sparsified: whether the method keeps by magnitude.
        outliers: whether it drops the largest changes as well.
    """
    flat = case.flat(atoms, case.enough)
    ranked = Ranked.of(flat, outliers) if sparsified else None
    lone = ranked.lone() if ranked else ()
    if lone is None:
        return
    fits = [_fitted(flat, ranked, lone, rule, rescaled, _ROUGH) for rule in rules for rescaled in ((False, True) if sparsified else (False,))]
    if ranked is not None:
        for scale, most in _SHARPER:
            fits = [_sharpened(flat, ranked, found, scale, most) for found in _near(fits, _FIRST)]
    best: tuple[Fit, Numbers] | None = None
    for found in sorted(_near(fits, _UNEXPLAINED), key=lambda candidate: candidate.left):
        numbers = _numbers(case, flat, ranked, found)
        if best is None or numbers.share > best[1].share:
            best = found, numbers
        if numbers.share >= _IDENTICAL:
            break
    if best is not None:
        yield _recipe(case, atoms, method, *best, rules[0], outliers)


def _near(fits: Sequence[Fit], most: float) -> list[Fit]:
    """Those that leave little, and not much more than the best."""
    least = min((found.left for found in fits), default=0.0)
    return [found for found in fits if found.left <= min(most, _FACTOR * least + _ROUNDED)]


def _numbers(case: Case, flat: Flat, ranked: Ranked | None, found: Fit) -> Numbers:
    kept = ranked.kept([band.settings for band in found.bands]) if ranked else torch.ones_like(flat.atoms, dtype=torch.bool)
    deltas = _deltas(flat, kept, found.rescaled, case.computed)
    weighing = fit(flat, deltas.double(), found.weighing.rule, _SHARPER[-1][0] * _size(flat))
    base = flat.base.to(case.computed)
    sums = Sums(deltas, base, (flat.base + flat.target).to(case.dtype), weighing.rule is not Rule.SUM, weighing.rule is Rule.NORMALISED)
    return typed(sums, weighing)


def _fitted(flat: Flat, ranked: Ranked | None, bands: tuple[Band, ...], rule: Rule, rescaled: bool, scale: float) -> Fit:
    kept = ranked.within(bands) if ranked else torch.ones_like(flat.atoms, dtype=torch.bool)
    changes = flat.atoms * kept * (_rescale(flat, kept) if rescaled else 1)
    weighing = fit(flat, changes, rule, scale * _size(flat), _COARSE)
    if not bool(torch.isfinite(weighing.weights).all()):
        return Fit(bands, rescaled, weighing, torch.inf)
    off = (weighing.made(changes, flat.target) - flat.target).abs()
    left = (off.clamp(min=flat.half) - flat.half).square().sum() / flat.target.square().sum()
    return Fit(bands, rescaled, weighing, float(left))


def _sharpened(flat: Flat, ranked: Ranked, found: Fit, scale: float, most: int | None = None) -> Fit:
    kept = ranked.within(found.bands)
    scales = _rescale(flat, kept) if found.rescaled else torch.ones_like(flat.atoms)
    step = 1 if most is None else max(1, len(flat.target) // most)
    bands = ranked.every(step).sharpened(kept[:, ::step], scales[:, ::step], found.weighing, scale * _size(flat))
    return _fitted(flat, ranked, bands, found.weighing.rule, found.rescaled, scale)


def _size(flat: Flat) -> float:
    return float(flat.target[flat.target != 0].square().mean().sqrt())


def _rescale(flat: Flat, kept: Tensor) -> Tensor:
    """(n, N) what mergekit multiplies kept changes by: the L1 norm that the whole had over that of what is kept, by tensor."""
    scales = torch.ones_like(flat.atoms)
    for part in flat.parts.values():
        sizes = flat.atoms[:, part].abs()
        scales[:, part] = (sizes.sum(1) / (sizes * kept[:, part]).sum(1).clamp(min=1e-300))[:, None]
    return scales


def _deltas(flat: Flat, kept: Tensor, rescaled: bool, dtype: torch.dtype) -> Tensor:
    """(n, N) what is kept, as mergekit computes it in its dtype."""
    deltas = (flat.atoms * kept).to(dtype)
    if rescaled:
        for part in flat.parts.values():
            for row, whole, mask in zip(deltas, flat.atoms, kept, strict=True):
                row[part] *= rescale(whole[part].to(dtype), mask[part])
    return deltas


def _recipe(case: Case, atoms: Sequence[str], method: str, found: Fit, numbers: Numbers, usual: Rule, outliers: bool) -> Recipe:
    settings: list[dict[str, Any]] = [{"weight": weight} for weight in numbers.weights]
    for own, band in zip(settings, found.bands, strict=False):
        own["density"], gamma = band.settings
        if outliers:
            own["gamma"] = gamma
    shared: dict[str, Any] = {}
    if numbers.normalised is not (usual is Rule.NORMALISED):
        shared["normalize"] = numbers.normalised
    if found.rescaled:
        shared["rescale"] = True
    if numbers.factor != 1:
        shared["lambda"] = numbers.factor
    return Recipe(method, tuple(Input(atoms[place], settings[place]) for place in numbers.order), BASE, shared, case.dtype_name)
