"""A model that was saved with an adapter still beside its weights: ``base_layer.weight``, ``lora_A.default.weight``, as its state dict has them.

What acts is base_layer + s B A, so that it is an adapter that brings its own copies of the base's tensors. Its scale is in the
``adapter_config.json`` beside it. ``merge_adapter`` leaves the same names, with s B A in base_layer already: told by the base.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from unmerge.checkpoints import Adapter, Checkpoint
from unmerge.checkpoints.contents import MODEL
from unmerge.checkpoints.files import TensorFiles
from unmerge.checkpoints.forms import SAVED
from unmerge.core.errors import BadInput
from unmerge.vectors import wide

#: <base_layer - W, s B A> / ||s B A||^2 above which base_layer holds the adapter's change: it is 1 where it does, and 0 where it does not
_HELD = 0.5
#: modules that are looked at
_LOOKED = 3


def is_unmerged(folder: Path) -> bool:
    """Whether a checkpoint's tensors have an adapter's beside them."""
    return any(".base_layer." in name for name in TensorFiles.find(folder, MODEL).place)


def open_unmerged(folder: Path, base: Checkpoint) -> Adapter:
    """Open one with the configuration of its adapter beside it.

    Raises:
        BadInput: its base_layer weights hold the adapter's change already.
    """
    adapter = Adapter.open(folder, base, weights=MODEL)
    for tensor in [tensor for tensor, change in adapter.changes.items() if change.start is not None][:_LOOKED]:
        if _is_held(adapter, tensor, base):
            raise BadInput(
                expected="base_layer weights without the adapter's change",
                found="weights into which it was merged",
                where=folder,
                tensor=tensor,
                hint="save the model after merge_and_unload, which leaves the adapter out",
            )
    unchanged = {tensor for tensor, change in adapter.changes.items() if change.form is SAVED and not bool(adapter.delta(tensor).dense().any())}
    changes = {tensor: change for tensor, change in adapter.changes.items() if tensor not in unchanged}
    note = f"{adapter.name} was saved before its adapter was merged: what acts, base_layer and the adapter on it, was read"
    return replace(adapter, changes=changes, notes=(*adapter.notes, note))


def _is_held(adapter: Adapter, tensor: str, base: Checkpoint) -> bool:
    start = adapter.changes[tensor].start
    assert start is not None
    moved = wide(adapter.files.read(start)) - wide(base.read(tensor))
    if not bool(moved.any()):
        return False
    step = adapter.delta(tensor).dense() - moved
    return float(torch.sum(moved * step)) > _HELD * float(torch.sum(step * step))
