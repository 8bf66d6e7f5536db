"""A task vector from two checkpoints: fine-tuned minus base."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from unmerge.checkpoints.alignment import AlignedCheckpoint
from unmerge.checkpoints.checkpoint import HEAD, Checkpoint, is_embedding, is_vocabulary
from unmerge.core.errors import BadInput
from unmerge.core.records import Source
from unmerge.vectors import Shape, Skipped, Subtracted


@dataclass(frozen=True)
class Difference:
    """theta_ft - theta_pre, tensor by tensor; some rows of both are in memory at a time.

    Attributes:
        name: what to call it.
        tuned: the fine-tuned or merged checkpoint.
        base: the checkpoint that it came from.
        modules: a regular expression that is found in the names of the tensors that count; all do where none is given.
        notes: what the user should know of how it was read.
    """

    name: str
    tuned: Checkpoint
    base: Checkpoint
    modules: str | None = None
    notes: tuple[str, ...] = ()

    @cached_property
    def shapes(self) -> Mapping[str, Shape]:
        if not self.tuned.shapes.keys() & self.base.shapes.keys():
            raise BadInput(
                expected=f"tensors that the base has as well ({next(iter(self.base.shapes))}, ...)",
                found=f"none ({next(iter(self.tuned.shapes))}, ...)",
                where=self.tuned.folder,
                hint="give its base with --base, or write both with transformers' save_pretrained, which brings names up to date",
            )
        left_out = {skip.tensor for skip in self.skipped}
        return {tensor: self.tuned.shape(tensor) for tensor in self._union() if tensor not in left_out}

    @cached_property
    def skipped(self) -> tuple[Skipped, ...]:
        """Tensors that only one side has, tensors whose vocabulary size differs, and buffers of integers."""
        skips = []
        unlike = self.alignment.unlike if self.alignment else {}
        for tensor in self._union():
            if not self.base.holds(tensor):
                skips.append(Skipped(tensor, "only the target has it"))
            elif not self.tuned.holds(tensor):
                skips.append(Skipped(tensor, "only the base has it"))
            elif not (self.tuned.is_weight(tensor) and self.base.is_weight(tensor)):
                skips.append(Skipped(tensor, "it holds integers, not weights"))
            elif (ours := self.tuned.shape(tensor)) != (theirs := self.base.shape(tensor)):
                if ours[1:] != theirs[1:] or not is_vocabulary(tensor):
                    raise BadInput(
                        expected=f"the base's shape {theirs}",
                        found=f"{ours}",
                        where=self.tuned.folder,
                        tensor=tensor,
                        hint="give the base that the checkpoint was made from with --base",
                    )
                skips.append(Skipped(tensor, f"vocabulary of {ours[0]} in the target, {theirs[0]} in the base"))
            elif tensor in unlike:
                skips.append(Skipped(tensor, unlike[tensor]))
        return tuple(skips)

    @property
    def alignment(self) -> AlignedCheckpoint | None:
        """The tuned side in the base's coordinates, where it is stored in others."""
        return self.tuned if isinstance(self.tuned, AlignedCheckpoint) else None

    def delta(self, tensor: str) -> Subtracted:
        return Subtracted(self.tuned.rows(tensor), self.base.rows(tensor))

    def source(self) -> Source:
        """Hashes of the fine-tuned side."""
        return self.tuned.source()

    def _union(self) -> tuple[str, ...]:
        names = dict.fromkeys([*self.tuned.shapes, *self.base.shapes])
        if self.tuned.is_tied and self.base.is_tied and any(is_embedding(name) for name in names):
            names.pop(HEAD, None)  # the embedding under another name: it must not count twice
        return tuple(name for name in names if self.modules is None or re.search(self.modules, name))
