"""Channels inside a layer in another order: neurons of an MLP, attention heads, channels of a head.

Every matrix of a layer has one side on the residual stream and one inside: the rows of q, k, v, gate and up, the columns of o and down. An
order of the inner channels is a permutation of that side. Each matrix tells its own, by its own rows or columns; which side is the inner one
is told by the sizes, or where both are equal by which fits.
"""

from __future__ import annotations

import torch

from unmerge.checkpoints.alignment.aligned_checkpoint import AlignedCheckpoint, Operation
from unmerge.checkpoints.alignment.layers import layer_of
from unmerge.checkpoints.alignment.matching import Match, match
from unmerge.checkpoints.alignment.sample import both
from unmerge.checkpoints.alignment.tensor_map import TensorMap
from unmerge.checkpoints.checkpoint import Checkpoint
from unmerge.checkpoints.vocabulary import is_vocabulary

PERMUTED = "channels permuted"
#: a permutation is believed where it brings at least this share of the channels together. Over all tests between .7 and .95 say the same
_FITS = 0.9


def order_channels(target: AlignedCheckpoint, base: Checkpoint, tensors: set[str]) -> AlignedCheckpoint:
    """The target with the inner channels of some matrices in the base's order."""
    ways: dict[str, TensorMap] = {}
    moved: list[int] = []
    for tensor in both(target, base):
        if tensor not in tensors or is_vocabulary(tensor) or layer_of(tensor) is None:
            continue
        after, before = target.read(tensor), base.read(tensor)
        dim, found = max(((dim, match(_rows(after, dim), _rows(before, dim))) for dim in (0, 1)), key=_fit)
        if found.moved and found.alike >= _FITS and found.alike > found.alike_in_place:
            ways[tensor] = target.way(tensor).on_side(dim, found.order)
            moved.append(found.moved)
            bias = tensor.removesuffix("weight") + "bias"
            if _follows(target, base, bias, found):
                ways[bias] = target.way(bias).on_rows(found.order)
    if not ways:
        return target
    detail = f"{sum(moved)} channels of {len(moved)} matrices lay elsewhere than in the base"
    return target.changed(ways, Operation(PERMUTED, tuple(ways), detail))


def _rows(values: torch.Tensor, dim: int) -> torch.Tensor:
    return values.T if dim else values


def _fit(candidate: tuple[int, Match]) -> float:
    """How alike the channels of a side are, in the order that was found."""
    return float(candidate[1].cosines.abs().mean())


def _follows(target: Checkpoint, base: Checkpoint, bias: str, found: Match) -> bool:
    """Whether a bias was put in the same order."""
    if not (target.holds(bias) and base.holds(bias)) or target.shape(bias) != base.shape(bias) or len(found.order) != target.shape(bias)[0]:
        return False
    after, before = target.read(bias).double(), base.read(bias).double()
    return float((after[found.order] - before).norm()) < float((after - before).norm())
