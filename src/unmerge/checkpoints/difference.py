"""A task vector from two checkpoints: fine-tuned minus base."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from unmerge.checkpoints.alignment import AlignedCheckpoint
from unmerge.checkpoints.checkpoint import Checkpoint
from unmerge.checkpoints.tensor_names import MatchedNames, summary
from unmerge.checkpoints.vocabulary import is_head, rows_left_out
from unmerge.core.errors import BadInput
from unmerge.core.records import Source
from unmerge.vectors import Dense, Shape, Skipped, Subtracted


@dataclass(frozen=True)
class Difference:
    """theta_ft - theta_pre, tensor by tensor; some rows of both are in memory at a time.

    Attributes:
        name: what to call it.
        tuned: the fine-tuned or merged checkpoint, its tensors called as the base's.
        base: the checkpoint that it came from.
        modules: a regular expression that is found in the names of the tensors that count; all do where none is given.
        notes: what the user should know of how it was read.
        left_rows: tokens' rows that only one side has; the others are compared.
        factors: what the difference of a tensor is multiplied by, where it acts otherwise there than elsewhere.
    """

    name: str
    tuned: Checkpoint
    base: Checkpoint
    modules: str | None = None
    notes: tuple[str, ...] = ()
    left_rows: tuple[Skipped, ...] = ()
    factors: Mapping[str, float] = field(default_factory=dict)

    @staticmethod
    def between(name: str, tuned: Checkpoint, base: Checkpoint) -> Difference:
        """The difference of two checkpoints that may call their tensors differently, and may have vocabularies of different sizes.

        Raises:
            BadInput: they have no tensor in common, one of another shape, or two that cannot be told apart.
        """
        tuned = tuned.like(base)
        left, rows = [], {}
        for tensor in sorted(tuned.vocabulary | base.vocabulary):
            if not (tuned.holds(tensor) and base.holds(tensor)):
                continue
            ours, theirs = tuned.shape(tensor), base.shape(tensor)
            if ours[1:] == theirs[1:] and ours[0] != theirs[0]:
                rows[tensor] = min(ours[0], theirs[0])
                left.append(Skipped(tensor, rows_left_out(ours[0], theirs[0], "target", "base")))
        difference = Difference(name, tuned.first_rows(rows), base.first_rows(rows), left_rows=tuple(left))
        _ = difference.shapes  # another base is refused now, not in the middle of the work
        return difference

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
        """Tensors that only one side has, and buffers of integers."""
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
                raise BadInput(
                    expected=f"the base's shape {theirs}",
                    found=f"{ours}",
                    where=self.tuned.folder,
                    tensor=tensor,
                    hint="give the base that the checkpoint was made from with --base",
                )
            elif tensor in unlike:
                skips.append(Skipped(tensor, unlike[tensor]))
        return tuple(skips)

    @property
    def alignment(self) -> AlignedCheckpoint | None:
        """The tuned side in the base's coordinates, where it is stored in others."""
        return self.tuned if isinstance(self.tuned, AlignedCheckpoint) else None

    @property
    def matched_names(self) -> tuple[MatchedNames, ...]:
        """What the target calls otherwise than the base, and what lies together on one side alone (experts)."""
        ours, theirs = ({stored: held[0] for stored, held in side.held_in.items() if len(held) > 1} for side in (self.tuned, self.base))
        together = {} if ours and theirs else {**ours, **theirs}
        return summary({**together, **self.tuned.names})

    @property
    def has_shared_head(self) -> bool:
        """Whether the output head is the embedding, before and after."""
        return self.tuned.is_tied and self.base.is_tied and self.tuned.embedding is not None

    def first_rows(self, rows: Mapping[str, int]) -> Difference:
        """The same, with no more than the first rows of some tensors."""
        return replace(self, tuned=self.tuned.first_rows(rows), base=self.base.first_rows(rows))

    def delta(self, tensor: str) -> Subtracted | Dense:
        difference = Subtracted(self.tuned.rows(tensor), self.base.rows(tensor))
        return difference.scaled(self.factors[tensor]) if tensor in self.factors else difference

    def source(self) -> Source:
        """Hashes of the fine-tuned side."""
        return self.tuned.source()

    def _union(self) -> tuple[str, ...]:
        names = dict.fromkeys([*self.tuned.shapes, *self.base.shapes])
        if self.tuned.is_tied and self.base.is_tied and (self.tuned.embedding or self.base.embedding):
            for head in [name for name in names if is_head(name)]:
                names.pop(head)  # the embedding under another name: it must not count twice
        return tuple(name for name in names if self.modules is None or re.search(self.modules, name))
