"""Factors that cancel between two matrices of a layer: up x s with down / s, v x s with o / s, q x s with k / s, channel by channel.

The factor of a channel is read off its row or column as <T, W> / <W, W>, up to what the merge changed along W. In a pair the logarithms of
both sides are equal but for their sign; nothing else that happens to a model leaves that. The factor is estimated from both sides, and from
all channels together where they agree.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from unmerge.checkpoints.alignment.aligned_checkpoint import AlignedCheckpoint, Operation
from unmerge.checkpoints.alignment.layers import layer_of
from unmerge.checkpoints.alignment.sample import both
from unmerge.checkpoints.alignment.tensor_map import TensorMap
from unmerge.checkpoints.checkpoint import Checkpoint
from unmerge.checkpoints.vocabulary import is_vocabulary

RESCALED = "channels rescaled"
#: a pair is believed if both sides' logarithms cancel up to this share of what they are. Two sides that change by themselves leave 1; seen:
#: below .02 in rescaled pairs and above .7 in all merges and fine-tunes, so that .05 to .5 give the same answers
_CANCEL = 0.2
#: a channel's factor counts if it is this many times the noise, and more than this
_ABOVE, _LEAST = 6.0, 2e-3
#: channels have one factor if they spread by no more than this many times the noise
_ONE = 1.5


@dataclass(frozen=True)
class Side:
    """The inner channels of one matrix.

    Attributes:
        tensor, dim: the matrix, and its side.
        factors: (n,) of the target's channels over the base's, signed.
    """

    tensor: str
    dim: int
    factors: Float[Tensor, " n"]


@dataclass(frozen=True)
class Pair:
    """Two sides whose factors cancel.

    Attributes:
        cancels: share of their logarithms that is left in the sum.
        first, second: the sides; the second may have fewer channels, each shared by several of the first's.
        factors: (n,) of the second's channels; the first's have the inverse.
        group: how many of the first's heads share one of the second's.
        width: channels of a head.
    """

    cancels: float
    first: Side
    second: Side
    factors: Float[Tensor, " n"]
    group: int
    width: int


def undo_scales(target: AlignedCheckpoint, base: Checkpoint, tensors: set[str]) -> AlignedCheckpoint:
    """The target with factors that cancel between two matrices taken out of both."""
    sides: dict[str, list[Side]] = defaultdict(list)
    for tensor in both(target, base):
        if tensor in tensors and not is_vocabulary(tensor) and layer_of(tensor) is not None:
            module = tensor.removesuffix(".weight").rpartition(".")[0]
            sides[module] += [Side(tensor, dim, _factors(target, base, tensor, dim)) for dim in (0, 1)]
    ways: dict[str, TensorMap] = {}
    pairs = 0
    for beside in sides.values():
        for pair in sorted(_pairs(beside, base.config), key=lambda pair: pair.cancels):
            if pair.first.tensor in ways or pair.second.tensor in ways:
                continue
            pairs += 1
            for side, factors in ((pair.first, _spread(pair.factors, pair)), (pair.second, 1 / pair.factors)):
                ways[side.tensor] = target.way(side.tensor).on_side(side.dim, factors=factors)
                bias = side.tensor.removesuffix("weight") + "bias"
                if side.dim == 0 and target.holds(bias) and base.holds(bias) and target.shape(bias) == (len(factors),):
                    ways[bias] = target.way(bias).on_rows(factors=factors)
    if not ways:
        return target
    return target.changed(ways, Operation(RESCALED, tuple(ways), f"factors that cancel between {pairs} pairs of matrices were taken out"))


def _factors(target: Checkpoint, base: Checkpoint, tensor: str, dim: int) -> Float[Tensor, " n"]:
    """(n,) <T, W> / <W, W> of each row, or of each column."""
    after, before = target.read(tensor).double(), base.read(tensor).double()
    return (after * before).sum(1 - dim) / before.square().sum(1 - dim).clamp_min(1e-300)


def _pairs(sides: list[Side], config: Mapping[str, Any]) -> list[Pair]:
    """The pairs of sides that cancel."""
    found = []
    for one, other in itertools.combinations(sides, 2):
        first, second = (one, other) if len(one.factors) >= len(other.factors) else (other, one)
        group, rest = divmod(len(first.factors), len(second.factors))
        if one.tensor == other.tensor or rest:
            continue
        heads = config.get("num_key_value_heads") or 1
        if group > 1 and len(second.factors) % heads:
            continue
        width = len(second.factors) // heads if group > 1 else len(second.factors)
        if pair := _pair(first, second, group, width):
            found.append(pair)
    return found


def _pair(first: Side, second: Side, group: int, width: int) -> Pair | None:
    shared = first.factors.reshape(-1, group, width)
    signs = shared.sign().mean(1).reshape(-1)
    one, two = shared.abs().clamp_min(1e-12).log().mean(1).reshape(-1), second.factors.abs().clamp_min(1e-12).log()
    if bool((signs.abs() < 1).any()) or not bool((signs == second.factors.sign()).all()):
        return None
    left, factor = one + two, (two - one) / 2
    noise = 1.4826 * float(left.abs().median()) / 2
    counts = (factor.abs() > max(_ABOVE * noise, _LEAST)) | (signs < 0)
    if not bool(counts.any()):
        return None
    cancels = float(left.square().sum() / (4 * factor.square().sum()).clamp_min(1e-300))
    if cancels > _CANCEL and not bool((signs < 0).any()):
        return None
    middle = factor.median()
    if float((factor - middle).abs().median()) * 1.4826 < _ONE * noise and bool(counts.all()):
        factor = middle.expand_as(factor)
    return Pair(cancels, first, second, torch.where(counts, signs * factor.exp(), torch.ones_like(factor)), group, width)


def _spread(factors: Float[Tensor, " n"], pair: Pair) -> Float[Tensor, " m"]:
    """Factors of the second's channels, for the first's."""
    return factors.reshape(-1, 1, pair.width).expand(-1, pair.group, -1).reshape(-1)
