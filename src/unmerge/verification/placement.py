"""Where the changes of components lie among the tensors that a checkpoint stores, and which of them stay in it.

- A head that is tied to the embedding is one weight with it. What a component does to either is taken from every stored copy: a copy that was
  left as it is would bring the component back, since ``transformers`` unties two copies that differ.
- A vocabulary may have other sizes in base, adapter and target. Rows are subtracted where all have them.
- A tensor that the component was read without (``skipped``) stays as it is. So do rows of new tokens. Both are told.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from unmerge.checkpoints import Adapter, Checkpoint, Difference
from unmerge.checkpoints.alignment import StoredChange
from unmerge.checkpoints.vocabulary import is_outside
from unmerge.core.errors import BadInput
from unmerge.decomposition.ablation_record import Remaining
from unmerge.decomposition.dictionary import Vector
from unmerge.vectors import Delta
from unmerge.verification.subtract import fits

Removed = Sequence[tuple[Vector, float]]
#: the same, where a component may be seen in the coordinates of its target
Changes = Sequence[tuple[Vector | StoredChange, float]]


@dataclass(frozen=True)
class Part:
    """One change of a component, with its coefficient."""

    vector: Vector | StoredChange
    tensor: str
    coefficient: float

    @property
    def change(self) -> tuple[Delta, float]:
        """The change, read now, and the coefficient."""
        return self.vector.delta(self.tensor), self.coefficient


@dataclass(frozen=True)
class Placement:
    """What is subtracted from a checkpoint.

    Attributes:
        parts: by stored tensor.
        remaining: what stays in it.
    """

    parts: dict[str, list[Part]]
    remaining: list[Remaining]


def place(target: Checkpoint, removed: Changes) -> Placement:
    """Find the stored tensors that components change.

    Args:
        target: the checkpoint.
        removed: (task vector, coefficient) pairs.

    Raises:
        BadInput: a component changes a tensor that the target does not have, or has in another shape.
    """
    parts: dict[str, list[Part]] = {}
    remaining: list[Remaining] = []
    for vector, coefficient in removed:
        remaining += _skipped(target, vector)
        for tensor, shape in vector.shapes.items():
            names = target.copies(tensor)
            if not names or not all(fits(target.shapes[name], shape, vocabulary=is_outside(tensor)) for name in names):
                found = f"shape {target.shapes[names[0]]}" if names else "no such tensor"
                raise BadInput(
                    expected=f"a tensor of shape {shape}, which {vector.name} changes",
                    found=found,
                    where=target.folder,
                    tensor=tensor,
                    hint="check that the component is for this target's architecture, or remove another one",
                )
            if tensor not in names[:1] and names[0] in vector.shapes and not isinstance(vector, Adapter):
                reason = "the target's head is its embedding, from which the component's own change of the embedding was taken"
                remaining.append(Remaining(component=vector.name, tensor=tensor, reason=reason))
                continue
            for name in names:
                parts.setdefault(name, []).append(Part(vector, tensor, coefficient))
            if shape and (rows := target.parts[names[0]].all_rows) > shape[0]:
                reason = f"rows {shape[0]} to {rows - 1} are of tokens that the component was read without"
                remaining.append(Remaining(component=vector.name, tensor=tensor, reason=reason))
    return Placement(parts, remaining)


def remaining(target: Vector, removed: Removed) -> list[Remaining]:
    """What of components stays in a target; in an adapter, what they were read without."""
    if isinstance(target, Difference):
        return place(target.tuned, removed).remaining
    return [Remaining(component=vector.name, tensor=skip.tensor, reason=skip.reason) for vector, _ in removed for skip in vector.skipped]


def _skipped(target: Checkpoint, vector: Vector | StoredChange) -> Iterator[Remaining]:
    """The tensors that a component was read without, where the target has weights of that name."""
    for skip in vector.skipped:
        names = target.copies(skip.tensor)
        if names and target.is_weight(names[0]):
            yield Remaining(component=vector.name, tensor=skip.tensor, reason=skip.reason)
