"""Norms folded into the linear layers that follow them.

A norm multiplies every channel of the residual stream by its weight n, and W n x = (W diag(n)) x: n may be moved into the columns of
every W that reads the norm's output, and 1 left in its place (0 where the norm multiplies by 1 + n, as Gemma's does). What was moved is
known from both norms, the base's n and the target's n', and undone by dividing the columns by n / n'. Which norm goes into which matrix
is read off the lengths of columns, which no order of the rows changes.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from unmerge.checkpoints.alignment.aligned_checkpoint import AlignedCheckpoint, Operation
from unmerge.checkpoints.alignment.layers import layer_of
from unmerge.checkpoints.alignment.sample import both
from unmerge.checkpoints.alignment.tensor_map import TensorMap
from unmerge.checkpoints.checkpoint import Checkpoint
from unmerge.checkpoints.vocabulary import is_embedding, is_vocabulary

FOLDED = "norm folded"
Place = tuple[str, int] | None
#: a norm that differs by less is taken as it is. A fine-tune moves norms by less than a percent; a fold by their whole spread
_DIFFERS = 0.01
#: a fold explains the lengths of the columns if it leaves less than this share of their change. Seen: below .1 in folds with any order and
#: scale of the rows, and above .9 where a norm was trained; .2 to .8 give the same answers
_LEFT = 0.5
#: rows of a vocabulary that lengths of columns are taken over
_ROWS = 4096


@dataclass(frozen=True)
class Fold:
    """A norm and a matrix that it went into.

    Attributes:
        norm, matrix: their names.
        dim: the side of the matrix that was multiplied: 1 for columns, 0 where the matrix is stored transposed.
        factors: (h,) what undoes it: the target's weights over the base's.
    """

    norm: str
    matrix: str
    dim: int
    factors: Float[Tensor, " h"]


def unfold_norms(target: AlignedCheckpoint, base: Checkpoint) -> AlignedCheckpoint:
    """The target with folded norms taken out of the matrices again."""
    changed = _changed_norms(target, base)
    if not changed:
        return target
    folds = [fold for matrix in _matrices(target, base) if (fold := _fold(target, base, matrix, changed[_place(matrix)]))]
    if not folds:
        return target
    norms = sorted({fold.norm for fold in folds})
    ways = {fold.matrix: target.way(fold.matrix).on_side(fold.dim, factors=fold.factors) for fold in folds}
    ways |= {norm: TensorMap(target.way(norm).stored, values=base.read(norm)) for norm in norms}
    detail = f"the weights of {len(norms)} norms had been multiplied into {len(folds)} matrices"
    return target.changed(ways, Operation(FOLDED, (*norms, *(fold.matrix for fold in folds)), detail))


def _matrices(target: Checkpoint, base: Checkpoint) -> Iterator[str]:
    return (name for name in both(target, base) if not is_embedding(name))


def _fold(target: AlignedCheckpoint, base: Checkpoint, matrix: str, norms: list[str]) -> Fold | None:
    """The norm that went into a matrix, and the side where it did, by which fits best."""
    candidates = [
        (norm, dim, ratio) for norm in norms for ratio in _ratios(target, base, norm) for dim in (1, 0) if target.shape(matrix)[dim] == len(ratio)
    ]
    if not candidates:
        return None
    after, before = (_values(side, matrix) for side in (target, base))
    tried = [(_left(after, before, ratio) if dim else _left(after.T, before.T, ratio), norm, dim, ratio) for norm, dim, ratio in candidates]
    left, norm, dim, ratio = min(tried, key=lambda candidate: candidate[0])
    return Fold(norm, matrix, dim, ratio) if left < _LEFT else None


def _ratios(target: Checkpoint, base: Checkpoint, norm: str) -> Iterator[Float[Tensor, " h"]]:
    """(h,) the target's weights of a norm over the base's, as they multiply: by n, or by 1 + n."""
    before, after = (side.read(norm).double() for side in (base, target))
    for offset in (0.0, 1.0):
        ratio = (after + offset) / (before + offset)
        if bool((torch.isfinite(ratio) & (ratio != 0)).all()) and float((ratio.abs() - 1).abs().median()) >= _DIFFERS:
            yield ratio


def _changed_norms(target: Checkpoint, base: Checkpoint) -> dict[Place, list[str]]:
    """Vectors of weights that differ from the base's, by the layer that they are in, or outside all layers."""
    found: dict[Place, list[str]] = defaultdict(list)
    for name, shape in target.shapes.items():
        if len(shape) != 1 or not name.endswith("weight") or not base.holds(name) or base.shape(name) != shape:
            continue
        if target.is_weight(name) and base.is_weight(name):
            before, after = base.read(name).double(), target.read(name).double()
            if float((after - before).norm()) > _DIFFERS * float(before.norm()):
                found[_place(name)].append(name)
    return found


def _place(tensor: str) -> Place:
    found = layer_of(tensor)
    return found[:2] if found else None


def _values(side: Checkpoint, matrix: str) -> Float[Tensor, "n m"]:
    """A matrix in float32; of a vocabulary, some of its rows."""
    rows, count = side.rows(matrix), side.shape(matrix)[0]
    return rows[slice(0, None, max(1, count // _ROWS) if is_vocabulary(matrix) else 1)].float()


def _left(after: Float[Tensor, "n h"], before: Float[Tensor, "n h"], ratio: Float[Tensor, " h"]) -> float:
    """The share of the change in the columns' lengths that a fold leaves; a norm that is one number is a factor of the whole matrix.

    Rows have length 1 first, so that factors of the rows count for nothing, and their order does not either.
    """
    if float(ratio.abs().log().std()) < _DIFFERS:
        change = float(after.norm() / before.norm().clamp_min(1e-30))
        return abs(math.log(change * float(ratio.abs().median()))) / max(abs(math.log(change)), 1e-30) if change else 1.0
    found, plain, folded = (_lengths(values) for values in (after, before, before / ratio.float()))
    return float((found - folded).std() / (found - plain).std().clamp_min(1e-30))


def _lengths(values: Float[Tensor, "n h"]) -> Float[Tensor, " h"]:
    """(h,) logarithms of the columns' lengths, over rows of length 1."""
    found: Tensor = (values / values.norm(dim=1, keepdim=True).clamp_min(1e-30)).norm(dim=0).clamp_min(1e-30).log()
    return found
