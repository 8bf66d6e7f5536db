"""From estimates to numbers of the dtype: weights as they may have been typed, and rescales.

In a narrow dtype weights and rescales are few numbers, and every product is rounded: the right ones are those under which
entries are a sum to the last bit.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from unmerge.recipes.case import Case
from unmerge.recipes.chance.learned import Learned
from unmerge.recipes.chance.reading import PRECISION, Acting, share_explained
from unmerge.recipes.chance.scale import Scale
from unmerge.recipes.decimals import cell, scaled, shortest
from unmerge.recipes.weights import Rule

#: dtypes in which weights and rescales are few numbers
_NARROW = (torch.bfloat16, torch.float16)
#: tensors and entries of each that numbers are tried on, scales of weights that are tried, and a share that leaves nothing to gain
_TRIED, _TRIED_ON, _SCALES, _ALL = 4, 400, 30, 0.9999
#: scales in an octave that are tried where rounding shows the scale
_OCTAVE = 160


@dataclass(frozen=True)
class Settled:
    """Weights as they may have been typed, and what acted in every tensor."""

    typed: tuple[float, ...]
    rescaled: bool
    acting: Mapping[str, Acting]


def settled(case: Case, atoms: Sequence[str], found: Learned, scale: Scale) -> Settled:
    """From estimates to numbers of the dtype: those under which most entries are a sum, to the last bit."""
    alone, places = found.laws, {tensor: finest[:_TRIED_ON] for tensor, finest in found.finest.items()}
    few = list(alone)[:: max(1, len(alone) // _TRIED)]

    def acting(tensor: str, typed: Sequence[float]) -> Acting:
        weights, law = torch.tensor(typed, dtype=torch.float64).to(case.computed), alone[tensor]
        rescales = law.factors / (scale.factor if law.rule is Rule.NORMALISED else weights.double()) if scale.rescaled else torch.ones(len(atoms))
        return Acting(law, weights, rescales.to(case.computed), scale.factor)

    def share(typed: Sequence[float]) -> float:
        return sum(share_explained(case, atoms, tensor, acting(tensor, typed), places[tensor]) for tensor in few) / len(few)

    values = [float(value) for value in scale.weights]
    if next(iter(alone.values())).rule is Rule.NORMALISED:
        tolerance = max(float(scale.loose.max()), 1e-6)
        likely = [*itertools.islice(scaled(values, tolerance), _SCALES if case.computed in _NARROW else 1), tuple(values)]
        typed = likely[0] if case.computed not in _NARROW else _at_some_scale(likely, values, case.computed, share)
    else:
        typed = tuple(shortest(value * (1 - width), value * (1 + width)) for value, width in zip(values, scale.loose.tolist(), strict=True))
        typed = _coordinates(typed, values, scale.loose.tolist(), case.computed, share) if case.computed in _NARROW else typed
    return Settled(typed, scale.rescaled, {tensor: _stepped(case, atoms, tensor, acting(tensor, typed), places[tensor]) for tensor in alone})


def _at_some_scale(
    likely: Sequence[tuple[float, ...]], values: Sequence[float], dtype: torch.dtype, share: Callable[[Sequence[float]], float]
) -> tuple[float, ...]:
    """Weights up to scale in a narrow dtype, whose rounding shows the scale, up to a power of two."""
    best = max(likely, key=share)
    if share(best) >= _ALL:
        return best
    direction = torch.tensor(values, dtype=torch.float64)
    for top in torch.linspace(0.6, 1.2, _OCTAVE, dtype=torch.float64):
        scaled_to = (direction / direction.max() * top).to(dtype).tolist()
        changed = tuple(shortest(*cell(value, dtype)) for value in scaled_to)
        best = max(best, changed, key=share)
    return _coordinates(best, best, [0.0] * len(best), dtype, share)


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


def _stepped(case: Case, atoms: Sequence[str], tensor: str, acting: Acting, places: torch.Tensor) -> Acting:
    """Rescales in a narrow dtype, moved by a step of it where more entries then are a sum."""
    best = share_explained(case, atoms, tensor, acting, places)
    if case.computed not in _NARROW:
        return acting
    for place in range(len(atoms)):
        for towards in (0.0, torch.inf):
            if best >= _ALL:
                return acting
            rescales = acting.rescales.clone()
            rescales[place] = torch.nextafter(rescales[place], torch.tensor(towards, dtype=case.computed))
            changed = replace(acting, rescales=rescales)
            if (found := share_explained(case, atoms, tensor, changed, places)) > best:
                acting, best = changed, found
    return acting
