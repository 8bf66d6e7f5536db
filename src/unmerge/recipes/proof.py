"""A recipe is run by mergekit from cold caches, and what it makes is compared with the target weight by weight."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from unmerge.checkpoints import Checkpoint
from unmerge.core.records import write_text
from unmerge.recipes.merge import merge
from unmerge.recipes.record import KindProof, Proof
from unmerge.vectors import wide
from unmerge.vectors.delta import row_slices

#: bytes of what is made that are held until they are written
_SHARD = 100_000_000


def prove(configuration: Mapping[str, Any], target: Checkpoint, base: Checkpoint) -> Proof:
    """Run a configuration and compare.

    Args:
        configuration: mergekit's.
        target: what it is to make.
        base: what changes are counted from.
    """
    with tempfile.TemporaryDirectory(prefix="unmerge-") as scratch:
        file = Path(scratch) / "recipe.yml"
        write_text(file, yaml.safe_dump(dict(configuration), sort_keys=False))
        merge(file, Path(scratch) / "made", shard=_SHARD)
        return compare(Checkpoint.open(Path(scratch) / "made").like(base), target, base)


@dataclass(frozen=True)
class Compared:
    """One tensor of what was made, beside the target's.

    Attributes:
        counted: its weights.
        largest_change: of the target from the base.
        left: squared norm of what differs.
        norm: squared norm of the target's change.
    """

    counted: KindProof
    largest_change: float
    left: float
    norm: float


def compare(made: Checkpoint, target: Checkpoint, base: Checkpoint) -> Proof:
    """Two checkpoints, weight by weight, one tensor at a time."""
    tensors = (tensor for tensor in target.shapes if made.holds(tensor) and target.is_weight(tensor))
    return gathered((tensor, _compared(made, target, base, tensor)) for tensor in tensors)


def gathered(tensors: Iterable[tuple[str, Compared]]) -> Proof:
    """A proof from what was compared, by tensor."""
    kinds: dict[str, KindProof] = {}
    change = left = norm = 0.0
    for tensor, compared in tensors:
        kind = kind_of(tensor)
        kinds[kind] = added(kinds[kind], compared.counted) if kind in kinds else compared.counted
        change, left, norm = max(change, compared.largest_change), left + compared.left, norm + compared.norm
    changed = sum(kind.changed for kind in kinds.values())
    return Proof(
        identical_share=sum(kind.identical for kind in kinds.values()) / changed if changed else 1.0,
        largest_difference=max((kind.largest_difference for kind in kinds.values()), default=0.0),
        largest_change=change,
        reconstruction_error=(left / norm) ** 0.5 if norm else 0.0,
        by_kind=kinds,
    )


def added(one: KindProof, other: KindProof) -> KindProof:
    """Counts of both."""
    return KindProof(
        changed=one.changed + other.changed,
        identical=one.identical + other.identical,
        largest_difference=max(one.largest_difference, other.largest_difference),
    )


def counted(differs: Tensor, equal: Tensor, off: Tensor) -> KindProof:
    """Counts of one tensor.

    Args:
        differs: weights that differ from the base in either; those count.
        equal: weights that are the same.
        off: differences.
    """
    return KindProof(changed=int(differs.sum()), identical=int((differs & equal).sum()), largest_difference=float(off.abs().max()))


def _compared(made: Checkpoint, target: Checkpoint, base: Checkpoint, tensor: str) -> Compared:
    """One tensor, some rows at a time; of a vocabulary whose sizes differ the rows that both have."""
    sides = [model.rows(tensor) for model in (target, made)]
    known = base.holds(tensor) and base.shape(tensor)[1:] == target.shape(tensor)[1:]
    count = min(side.shape[0] for side in sides) if sides[0].shape else 1
    if known:
        sides.append(base.rows(tensor))
        count = min(count, sides[-1].shape[0])
    found = KindProof(changed=0, identical=0, largest_difference=0.0)
    change = left = norm = 0.0
    for block in row_slices((count, *sides[0].shape[1:])):
        theirs, *others = (side[block] for side in sides)
        ours, before = (other.to(theirs.dtype) for other in others) if known else (others[0].to(theirs.dtype), torch.zeros_like(theirs))
        off, moved = wide(theirs) - wide(ours), wide(theirs) - wide(before)
        found = added(found, counted((theirs != before) | (ours != before), ours == theirs, off))
        change, left, norm = max(change, float(moved.abs().max())), left + _square(off), norm + _square(moved)
    return Compared(found, change, left, norm)


def _square(values: Tensor) -> float:
    return float(torch.linalg.vector_norm(values, dtype=torch.float64)) ** 2


def kind_of(tensor: str) -> str:
    """A tensor's name without its layer."""
    inside = tensor.rpartition(".layers.")[2] if ".layers." in tensor else tensor
    return inside.partition(".")[2] if inside != tensor else tensor
