"""A look at a few rows: does a target's matrix lie as the base's does?

A merge changes weights by some percent. Rows in another order, a folded norm or a factor change them by much more, or by the same factor
everywhere. The look reads eight rows of each matrix, so that a target that lies as its base does costs next to nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

from jaxtyping import Float
from torch import Tensor

from unmerge.checkpoints.checkpoint import Checkpoint

#: rows looked at
ROWS = 8
#: a relative change of more than this is looked into; ordinary merges change some percent, fine-tunes of the whole model up to ten. Anything
#: from .03 to .25 changes how long it takes, not what is said
_CHANGED = 0.1
#: so are two rows that changed along themselves: by more than this, and by more than this share of their change, which is at most .1 in merges
_SCALED, _ALONG = 0.003, 0.3
#: and a column that changed by more than half of itself and this many times as much as all do
_COLUMN, _STANDS_OUT = 0.5, 8.0


def matrices(checkpoint: Checkpoint) -> Iterator[str]:
    """The tensors of weights with two dimensions."""
    return (name for name, shape in checkpoint.shapes.items() if len(shape) == 2 and min(shape) > 1 and checkpoint.is_weight(name))


def both(target: Checkpoint, base: Checkpoint) -> Iterator[str]:
    """The matrices that a target and its base have in the same shape."""
    return (name for name in matrices(target) if base.holds(name) and base.is_weight(name) and base.shape(name) == target.shape(name))


def some_rows(checkpoint: Checkpoint, tensor: str, count: int = ROWS) -> Float[Tensor, "k ..."]:
    """Evenly spaced rows of a tensor, in float64."""
    rows = checkpoint.rows(tensor)
    if not rows.shape:
        return rows[...].double()
    return rows[slice(0, None, max(1, rows.shape[0] // count))].double()


def lies_otherwise(target: Checkpoint, base: Checkpoint, tensor: str) -> bool:
    """Whether a matrix differs from the base's by so much, or so evenly, that its arrangement has to be looked into."""
    after, before = some_rows(target, tensor), some_rows(base, tensor)
    square = float(before.square().sum())
    if not square:
        return False
    change = after - before
    relative = float(change.norm()) / square**0.5
    if relative > _CHANGED:
        return True
    along = (change * before).sum(1).abs()
    scaled = (along > _SCALED * before.square().sum(1)) & (along > _ALONG * before.norm(dim=1) * change.norm(dim=1))
    if int(scaled.sum()) > 1:
        return True
    lengths = before.norm(dim=0)
    by_column = (change.norm(dim=0) / lengths.clamp_min(1e-30))[lengths > 0]
    return bool((by_column > max(_COLUMN, _STANDS_OUT * relative)).any())
