"""The residual stream in other coordinates: its dimensions in another order, with other signs, or rotated as a whole.

Embedding, head and every matrix that reads or writes the stream share its coordinates, so that the embedding tells them: a merge of adapters
leaves it as it is, or nearly. Dimensions in another order are found as rows of its transpose; a rotation Q, with E' = E Q, by orthogonal
Procrustes (Schoenemann 1966). RMSNorm commutes with a rotation once its weights are folded into the matrices behind it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unmerge.checkpoints.alignment.aligned_checkpoint import AlignedCheckpoint, Operation
from unmerge.checkpoints.alignment.matching import match
from unmerge.checkpoints.alignment.sample import lies_otherwise
from unmerge.checkpoints.alignment.tensor_map import TensorMap
from unmerge.checkpoints.checkpoint import Checkpoint
from unmerge.checkpoints.vocabulary import is_embedding, is_vocabulary

PERMUTED, ROTATED = "residual stream permuted", "residual stream rotated"
#: rows of the embedding that are looked at, at most this many times its width
_ROWS = 8
#: a rotation is believed if it leaves less than this share of the embedding's norm; a rotation of something else leaves more than .9
_LEFT = 0.25
#: share of the dimensions that an order must bring together
_FITS = 0.95
#: and an order lies on a vector if it brings it this much nearer to the base's; another vector's distance stays, within a tenth
_NEARER = 0.5

Change = Callable[[TensorMap, int], TensorMap]


def turn_back(target: AlignedCheckpoint, base: Checkpoint) -> AlignedCheckpoint:
    """The target with the residual stream in the base's coordinates."""
    embedding = next((name for name in target.shapes if is_embedding(name)), None)
    if embedding is None or not base.holds(embedding) or base.shape(embedding) != target.shape(embedding):
        return target
    if not lies_otherwise(target, base, embedding):
        return target
    width = base.shape(embedding)[1]
    chosen = slice(0, None, max(1, base.shape(embedding)[0] // (_ROWS * width)))
    after, before = (side.rows(embedding)[chosen].double() for side in (target, base))
    found = match(after.T, before.T)
    if found.alike >= _FITS:
        if not found.moved and bool((found.cosines > 0).all()):
            return target
        signs = torch.where(found.cosines < 0, -1.0, 1.0).double()
        factors = signs if bool((signs < 0).any()) else None
        ways = _everywhere(target, base, width, lambda way, dim: way.on_side(dim, found.order, factors), found.order)
        return target.changed(ways, Operation(PERMUTED, tuple(ways), f"{found.moved} of its {width} dimensions lay elsewhere than in the base"))
    left, _, right = torch.linalg.svd(before.T @ after)
    rotation = left @ right
    if float((after - before @ rotation).norm()) > _LEFT * float(before.norm()):
        return target
    ways = _everywhere(target, base, width, lambda way, dim: _rotated(way, dim, rotation))
    return target.changed(ways, Operation(ROTATED, tuple(ways), "every matrix was turned back by the rotation of the embedding"))


def _rotated(way: TensorMap, dim: int, rotation: Float[Tensor, "h h"]) -> TensorMap:
    """T Q^T where columns read the stream, Q T where rows write it."""
    return TensorMap(way.stored, right=rotation.T) if dim else TensorMap(way.stored, left=rotation)


def _everywhere(
    target: AlignedCheckpoint, base: Checkpoint, width: int, matrix: Change, order: Int[Tensor, " h"] | None = None
) -> dict[str, TensorMap]:
    """Change the side that lies on the stream in every tensor; a square matrix's is the one that then has the base's lengths."""
    ways: dict[str, TensorMap] = {}
    for name, shape in target.shapes.items():
        if not target.is_weight(name) or not base.holds(name) or base.shape(name) != shape or width not in shape:
            continue
        way = target.way(name)
        if len(shape) == 1:
            if order is not None and _lies_on_stream(target, base, name, order):
                ways[name] = way.on_rows(order)
        elif len(shape) == 2 and shape[0] != shape[1]:
            ways[name] = matrix(way, 1 if shape[1] == width or is_vocabulary(name) else 0)
        elif len(shape) == 2:
            ways[name] = max((matrix(way, dim) for dim in (1, 0)), key=lambda tried: _fit(target, base, name, tried))
    return ways


def _lies_on_stream(target: Checkpoint, base: Checkpoint, vector: str, order: Int[Tensor, " h"]) -> bool:
    """Whether the order brings a vector to the base's; a bias inside a layer may have the same length."""
    after, before = target.read(vector).double(), base.read(vector).double()
    return float((after[order] - before).norm()) < _NEARER * float((after - before).norm())


def _fit(target: AlignedCheckpoint, base: Checkpoint, name: str, way: TensorMap) -> float:
    """How well a way brings a square matrix to the base's, whatever lies inside the layer: correlation of the lengths along the stream."""
    dim = 1 if way.right is not None or way.columns is not None else 0
    aligned = way.applied(target.stored.rows(way.stored), slice(None)).double()
    one, two = (values.norm(dim=1 - dim).log() for values in (aligned, base.read(name).double()))
    return float(torch.corrcoef(torch.stack([one, two]))[0, 1])
