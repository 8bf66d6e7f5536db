"""Bring a checkpoint into its base's coordinates before the two are subtracted.

A model can be written down in many ways that compute the same: layers in another place, the residual stream turned, norms folded into the
next layer, channels inside a layer in another order, factors that cancel between two matrices. The difference to a base that is written down
otherwise is not what was trained or merged. Each step undoes one of these on what the step before left, from the outside in. A look at a few
rows decides whether there is anything to do (``sample``).
"""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from unmerge.checkpoints.alignment.aligned_checkpoint import AlignedCheckpoint
from unmerge.checkpoints.alignment.channels import order_channels
from unmerge.checkpoints.alignment.layers import layer_of, place_layers
from unmerge.checkpoints.alignment.matching import ALIKE
from unmerge.checkpoints.alignment.norms import unfold_norms
from unmerge.checkpoints.alignment.residual_stream import turn_back
from unmerge.checkpoints.alignment.sample import both, lies_otherwise, some_rows
from unmerge.checkpoints.alignment.scales import undo_scales
from unmerge.checkpoints.checkpoint import Checkpoint

#: rows by which it is judged whether anything is left that is not the base's, and how much of a difference may lie outside the leading half of
#: its directions, as a share of what the base's weights have there. Adapters have below .01, weights in another order about 1
_LOOKED, _FLAT = 64, 0.3


def aligned(target: Checkpoint, base: Checkpoint) -> Checkpoint:
    """The target in the base's coordinates; the target itself where it lies as the base does.

    Raises:
        BadInput: layers were added, left out or moved, and one of them is none of the base's.
    """
    view = place_layers(AlignedCheckpoint.of(target), base)
    otherwise = _otherwise(view, base)
    view = turn_back(view, base) if otherwise else view
    view = unfold_norms(view, base)
    if otherwise:
        view = undo_scales(order_channels(view, base, otherwise), base, otherwise)
        view = replace(view, unlike=_unlike(view, base, otherwise))
    return view if view.operations or view.unlike else target


def _otherwise(target: Checkpoint, base: Checkpoint) -> set[str]:
    """The matrices of every layer in which one does not lie as the base's does."""
    names = list(both(target, base))
    places = {name: (found[:2] if (found := layer_of(name)) else name) for name in names}
    touched = {places[name] for name in names if lies_otherwise(target, base, name)}
    return {name for name in names if places[name] in touched}


def _unlike(target: Checkpoint, base: Checkpoint, tensors: set[str]) -> dict[str, str]:
    """Matrices that are still not the base's, unless more are not than are: then it is another base, which is said of the whole target."""
    cosines = {name: _cosine(target, base, name) for name in tensors}
    unlike = {name: cosine for name, cosine in cosines.items() if cosine < ALIKE and _is_flat(target, base, name)}
    alike = sum(cosine >= ALIKE for cosine in cosines.values()) + sum(name not in tensors for name in both(target, base))
    if len(unlike) >= alike:
        return {}
    return {name: f"its rows are not the base's in any order or scale that was tried (cosine {cosine:.2f})" for name, cosine in unlike.items()}


def _cosine(target: Checkpoint, base: Checkpoint, tensor: str) -> float:
    """Of some rows."""
    after, before = some_rows(target, tensor, _LOOKED), some_rows(base, tensor, _LOOKED)
    return float((after * before).sum() / (after.norm() * before.norm()).clamp_min(1e-30))


def _is_flat(target: Checkpoint, base: Checkpoint, tensor: str) -> bool:
    """Whether the difference of some rows has directions as weights have them, not a few as an adapter has, however large it is."""
    after, before = some_rows(target, tensor, _LOOKED), some_rows(base, tensor, _LOOKED)
    return _tail(after - before) > _FLAT * _tail(before)


def _tail(values: Float[Tensor, "k m"]) -> float:
    """The share of the squared norm outside the leading half of the directions."""
    squares = torch.linalg.svdvals(values).square()
    return float(squares[len(squares) // 2 :].sum() / squares.sum().clamp_min(1e-30))
