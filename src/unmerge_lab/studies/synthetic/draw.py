"""Weights and adapters with the statistics of trained ones, tensor by tensor: each from its own seed, in whatever order it is asked for.

Weights are normal, at a scale that differs between rows and between columns. An adapter's q-th direction pair leans on one that all
adapters share, on both sides, so the cosine of two adapters is about the product of their leans, and it may lean on one of its family.
Its singular values fall as q^-p, with p such that the leading one holds a drawn share of the square; adapters trained on the embedded zoo
fall as q^-1.35. Its norm is a share ``norm`` of the weights' own, more in some modules than in others.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import lru_cache

import torch
from scipy.optimize import brentq
from torch import Tensor

from unmerge.vectors import LowRank, Shape

#: standard deviation of the weights, and how far the logarithm of its scale scatters over rows and columns
_WEIGHT, _UNEVEN = 0.02, 0.2
#: how far the logarithm of an adapter's norm scatters over modules
_SCATTER = 0.4
#: an adapter's lean over the mean one: least, and the range above it, of which most adapters use little (mean 1)
_LEAN, _LEANS = 0.5, 1.5
#: no lean beyond this: something is left that is an adapter's own
_MOST = 0.95
#: how far a member of a family leans on what the family shares, on the output's side (B) and the input's (A)
KINDS = {
    "run": (0.95, 0.95),  # a training and its continuation: cosine .9
    "start": (0.0, 0.85),  # one seed: the first factors start alike, B does not
    "author": (0.55, 0.55),  # one author's settings and answer format: cosine .3
    "alone": (0.0, 0.0),
}


@dataclass(frozen=True)
class Statistics:
    """What adapters are like.

    Attributes:
        rank: of each.
        norm: ||dW|| over ||W||, on average.
        cosine: between two adapters that are no relatives, on average.
        leading: share of an adapter's square, in each tensor, that its leading direction holds: from, to.
    """

    rank: int = 32
    norm: float = 0.003
    cosine: float = 0.15
    leading: tuple[float, float] = (0.7, 0.9)


@dataclass(frozen=True)
class Kin:
    """Which family an adapter is of, and by what; a key of KINDS."""

    family: str
    kind: str


ALONE = Kin("", "alone")


def weights(tensor: str, shape: Shape, seed: int) -> Tensor:
    """A tensor of the base, bfloat16."""
    generator = _generator(seed, tensor)
    if len(shape) < 2:
        near = 0.0 if tensor.endswith("bias") else 1.0
        return (near + 0.1 * torch.randn(shape, generator=generator)).bfloat16()
    values = torch.randn(shape, generator=generator)
    for side, size in enumerate(shape):
        scale = torch.exp(_UNEVEN * torch.randn(size, generator=generator))
        values *= scale[:, None] if side == 0 else scale
    return values.mul_(_WEIGHT).bfloat16()


def change(adapter: str, tensor: str, shape: Shape, statistics: Statistics, seed: int, kin: Kin = ALONE) -> LowRank:
    """What an adapter changes in a tensor: factors in bfloat16, as they lie on disk."""
    rank = min(statistics.rank, *shape)
    shared, related, own = _generator(seed, "shared", tensor), _generator(seed, "kin", kin.family, tensor), _generator(seed, adapter, tensor)
    # around the square root of the cosine, the same in all tensors
    lean = statistics.cosine**0.5 * (_LEAN + _LEANS * torch.rand(1, generator=_generator(seed, adapter)).square())
    sides = []
    for side, on_kin in zip(shape, KINDS[kin.kind], strict=True):
        on_all = lean.clamp(max=_MOST) * (1 - on_kin)
        drawn = [_unit(side, rank, generator) for generator in (shared, related, own)]
        parts = (on_all, torch.tensor([on_kin]), 1 - on_all - on_kin)
        sides.append(torch.stack([part.sqrt() * directions for part, directions in zip(parts, drawn, strict=True)]).sum(0))
    low, high = statistics.leading
    share = low + (high - low) * float(torch.rand(1, generator=own))
    sizes = spectrum(rank, share) * torch.exp(_SCATTER * torch.randn(1, generator=own))
    # the weights' norm as it is expected: log-normal scales on both sides have a mean square of exp(4 s^2)
    length = _WEIGHT * (shape[0] * shape[1]) ** 0.5 * float(torch.exp(torch.tensor(2 * _UNEVEN**2)))
    sizes *= statistics.norm * length
    return LowRank((sides[0] * sizes.sqrt()).bfloat16(), (sides[1] * sizes.sqrt()).T.contiguous().bfloat16())


def spectrum(rank: int, leading: float) -> Tensor:
    """(rank,) singular values of length 1 in all that fall as q^-p, the first with this share of the square (1 / rank at least)."""
    values = torch.pow(torch.arange(1, rank + 1, dtype=torch.float64), -_exponent(rank, leading))
    return values.div(values.norm()).float()


@lru_cache(maxsize=1024)
def _exponent(rank: int, leading: float) -> float:
    places = torch.arange(1, rank + 1, dtype=torch.float64)
    steepest = 20.0
    if rank == 1 or leading * rank <= 1:
        return 0.0
    return float(brentq(lambda power: 1 / float((places ** (-2 * power)).sum()) - leading, 0.0, steepest))


def _unit(width: int, count: int, generator: torch.Generator) -> Tensor:
    """(width, count) random directions of length 1."""
    drawn = torch.randn((width, count), generator=generator)
    drawn /= drawn.norm(dim=0)
    return drawn


def _generator(seed: int, *names: str) -> torch.Generator:
    return torch.Generator().manual_seed((seed << 32) + zlib.crc32("/".join(names).encode()))
