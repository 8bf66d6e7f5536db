"""Weights told from rescales.

mergekit rescales what is kept of an atom to the L1 norm that the whole had, tensor by tensor: sum |d| / sum |m d|, which the
masks tell. A factor over its rescale is the weight; where a rule normalises it is lambda, and weights are known up to scale.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from unmerge.recipes.case import Case
from unmerge.recipes.chance.learned import Learned
from unmerge.recipes.chance.masks import posterior
from unmerge.recipes.chance.reading import PRECISION
from unmerge.recipes.decimals import shortest
from unmerge.recipes.weights import Rule

#: weights that rescales are estimated from
_RESCALED = 200_000
#: scatter of factors over tensors, over what rescales would have by themselves, above which what was kept was rescaled
_SCATTERED = 0.25
#: how near to 1 lambda is taken for it, over 3
_USUAL = 3e-3


@dataclass(frozen=True)
class Scale:
    """What all tensors have in common.

    Attributes:
        weights: (n,); under a rule that normalises up to scale.
        loose: (n,) how far from them the true ones may be, relatively.
        factor: lambda.
        rescaled: whether what was kept was rescaled.
        spread: how much the weights differ from tensor to tensor, relatively, at most.
    """

    weights: Tensor
    loose: Tensor
    factor: float
    rescaled: bool
    spread: float


def scale_of(case: Case, found: Learned) -> Scale:
    """Tell weights from rescales: what was kept in some tensors says how it was rescaled there."""
    samples, alone, laws, size = found.samples, found.laws, list(found.laws.values()), 0
    rescales: dict[str, Tensor] = {}
    for tensor in sorted(alone, key=lambda name: (samples[name].target.numel(), name)):
        sample = samples[tensor]
        if rescales and size + sample.target.numel() > _RESCALED:
            break
        size += sample.target.numel()
        said = posterior(sample, alone[tensor], found.error)
        rescales[tensor] = (sample.changes.abs() * said.shown).sum(1) / (sample.changes.abs() * said.kept).sum(1).clamp(min=1e-300)
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
        return Scale(middle, loose, 1.0, rescaled, float(_scatter(acted).max()))
    factor = float(middle.median())
    near = max(float(loose.median()), _USUAL)
    factor = 1.0 if abs(factor - 1) < 3 * near else shortest(factor * (1 - near), factor * (1 + near))
    weights = torch.stack([law.weights for law in laws])
    middle = weights.median(0).values
    spread = _scatter(weights)
    return Scale(middle, 3 * spread / len(weights) ** 0.5 + 2 * PRECISION[case.dtype], factor, rescaled, float(spread.max()))


def _scatter(rows: Tensor) -> Tensor:
    """(n,) relative spread of (tensors, n), from the median absolute deviation."""
    middle = rows.median(0).values
    return 1.4826 * (rows - middle).abs().median(0).values / middle.abs().clamp(min=1e-300)
