"""A PEFT adapter on disk as a task vector."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from unmerge.checkpoints.adapter_changes import Change, changes_of
from unmerge.checkpoints.adapter_config import CONFIG, AdapterConfig
from unmerge.checkpoints.adapter_keys import Keys
from unmerge.checkpoints.checkpoint import Checkpoint
from unmerge.checkpoints.files import TensorFiles
from unmerge.checkpoints.forms import EMBEDDING_LORA, LORA
from unmerge.checkpoints.hub import short_name
from unmerge.checkpoints.initialisation import OLORA, RANDOMISED, less, start_of, taken_out
from unmerge.checkpoints.tensor_names import MatchedNames, renamed, summary
from unmerge.checkpoints.vocabulary import is_head
from unmerge.core.errors import BadInput
from unmerge.core.records import Source
from unmerge.vectors import Delta, Dense, LowRank, Shape, Skipped, first_rows, wide

WEIGHTS = "adapter_model"
#: modules that are looked at to tell whether the factors began as a part of the base; PEFT initialises all of them alike
_LOOKED = 3
#: parts that have one row a token, in a module that has
_BY_TOKEN = ("saved", "lora_B.weight", "lora_magnitude_vector")


@dataclass(frozen=True)
class Adapter:
    """A PEFT adapter folder, read tensor by tensor.

    Attributes:
        name: its folder's name, or its repository's.
        folder: where it lies.
        config: its settings.
        changes: by tensor of the base.
        files: its weights.
        base: the base, where it is given; DoRA and saved modules need it.
        skipped: tensors stored whole that the base lacks, and tensors that depend on a base where none is given.
        modules: a regular expression that is found in the names of the tensors that count; all do where none is given.
        names: what the adapter calls a tensor -> what it is called here, of those that have two names.
        matched_names: the same together, and the adapter's name where it is in the keys.
        left_rows: tokens' rows that only the adapter or only the base has; the others count.
        shared: a tensor -> the one that it is stored as: a tied output head -> the embedding.
        notes: what the user should know of how it was read.
        factors: what its change of a tensor is multiplied by, where it acts otherwise there than elsewhere.
        start: PISSA or OLORA, where its factors began as a part of the base, which is taken off their product.
    """

    name: str
    folder: Path
    config: AdapterConfig
    changes: Mapping[str, Change]
    files: TensorFiles
    base: Checkpoint | None
    skipped: tuple[Skipped, ...] = ()
    modules: str | None = None
    names: Mapping[str, str] = field(default_factory=dict)
    matched_names: tuple[MatchedNames, ...] = ()
    left_rows: tuple[Skipped, ...] = ()
    shared: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    start: str | None = None
    factors: Mapping[str, float] = field(default_factory=dict)
    _taken: dict[tuple[str, int | None], LowRank] = field(default_factory=dict, repr=False, compare=False)

    @staticmethod
    def open(folder: Path, base: Checkpoint | None = None, config: AdapterConfig | None = None, weights: str | None = None) -> Adapter:
        """Open an adapter; only headers are read.

        Args:
            folder: with ``adapter_config.json`` and ``adapter_model.safetensors``.
            base: its names and shapes decide how the adapter's are read; needed for DoRA, saved modules, trained biases, PiSSA and OLoRA.
            config: taken in place of ``adapter_config.json`` where there is none.
            weights: the stem of the file of weights, where it is not the configuration's.

        Raises:
            BadInput: no adapter, a type that does not add, damaged files, another base.
        """
        config = config or AdapterConfig.read(folder)
        files = TensorFiles.find(folder, weights or config.weights or WEIGHTS)
        keys = Keys.read(config, files)
        found = changes_of(config, files, keys, base)
        if not found.by_tensor:
            skips = found.skipped
            nothing = f"none ({skips[0].tensor} is left out: {skips[0].reason})" if skips else "none"
            raise BadInput(expected="adapter tensors", found=nothing, where=folder / f"{WEIGHTS}.safetensors", hint="save the adapter again")
        matched = (*keys.matched_names, *summary(keys.wrapped), *summary(found.names))
        adapter = Adapter(
            short_name(folder), folder, config, found.by_tensor, files, base, found.skipped, None, found.names, matched, found.left_rows
        )
        for tensor, change in found.by_tensor.items():
            adapter._check(tensor, change)
        return started(adapter)

    @cached_property
    def shapes(self) -> Mapping[str, Shape]:
        return {self.shared.get(tensor, tensor): change.shape for tensor, change in self.changes.items()}

    @property
    def needs_base(self) -> bool:
        """Whether a change depends on the base's weights."""
        return self.start is not None or any(change.needs_base for change in self.changes.values())

    @property
    def is_plain(self) -> bool:
        """Whether it is a LoRA of linear modules, none of them transposed, and nothing else, so that it can be written as factors again."""
        shared = self.changes.keys() & self.shared.keys()
        return not shared and all(change.form is LORA and change.start is None and not change.transposed for change in self.changes.values())

    def renamed(self, names: Mapping[str, str]) -> Adapter:
        """The same, some tensors under other names, and those beside them by the same rule."""
        own = {tensor: names.get(tensor, renamed(tensor, names)) for tensor in (*self.changes, *(skip.tensor for skip in self.skipped))}
        changes = {own[tensor]: change for tensor, change in self.changes.items()}
        skipped = tuple(replace(skip, tensor=own[skip.tensor]) for skip in self.skipped)
        new = {before: after for before, after in own.items() if before != after}
        return replace(self, changes=changes, skipped=skipped, names={**self.names, **new}, matched_names=(*self.matched_names, *summary(new)))

    def with_shared_head(self) -> Adapter:
        """The same on a tied base, its head's change where it lands when it is merged: in the embedding that both share."""
        embedding = self.base.embedding if self.base is not None and self.base.is_tied and self.base.head is None else None
        heads = [tensor for tensor in self.changes if is_head(tensor)]
        return replace(self, shared=dict.fromkeys(heads, embedding)) if embedding and heads else self

    def first_rows(self, rows: Mapping[str, int]) -> Adapter:
        """The same, with no more than the first rows of some tensors."""
        held = {tensor: rows[name] for tensor in self.changes if (name := self.shared.get(tensor, tensor)) in rows}
        changes = {tensor: change.first_rows(held[tensor]) if tensor in held else change for tensor, change in self.changes.items()}
        return replace(self, changes=changes)

    def delta(self, tensor: str) -> Delta:
        own = [tensor] if tensor in self.changes else []
        own += [head for head, stored in self.shared.items() if stored == tensor]
        total = _sum([self._delta(name, self.changes[name]) for name in own])
        return total.scaled(self.factors[tensor]) if tensor in self.factors else total

    def source(self) -> Source:
        """Hashes of weights and configuration."""
        return self.files.source(self.folder / CONFIG)

    def _delta(self, tensor: str, change: Change) -> Delta:
        parts = {part: self.files.read(key) for part, key in change.keys.items()}
        before = self.base.read(tensor) if change.needs_base and self.base is not None else None
        start = before if change.start is None else self.files.read(change.start)
        if change.rows is not None and change.needs_base:
            parts = {part: values[: change.rows] if part in _BY_TOKEN else values for part, values in parts.items()}
            before, start = (values if values is None else values[: change.rows] for values in (before, start))
        step = change.form.delta(parts, self.config.scale_of(change.module), change.transposed, start)
        step = step if change.rows is None else first_rows(step, change.rows)
        if self.start is not None and change.form is LORA and self.base is not None and isinstance(step, LowRank):
            place = tensor, change.rows
            if place not in self._taken:
                self._taken[place] = taken_out(self.start, self.base.read(tensor)[: change.rows], step, self.config.scale_of(change.module))
            step = less(step, self._taken[place])
        if start is None or before is None or change.start is None:
            return step
        # the adapter brings its own copy of the base's tensor: PEFT loads it, so that it counts where it differs
        moved = wide(start) - wide(before)
        return Dense(step.dense() + moved) if bool(moved.any()) else step

    def _check(self, tensor: str, change: Change) -> None:
        rank = change.form.rank({part: self.files.shapes[key] for part, key in change.keys.items()})
        if rank is not None and self.config.is_stated and rank != self.config.rank_of(change.module):
            raise BadInput(
                expected=f"rank {self.config.rank_of(change.module)} as {CONFIG} says",
                found=f"rank {rank}",
                where=self.folder,
                tensor=tensor,
                hint="mend r or rank_pattern in the configuration",
            )
        if self.config.dora and change.form in (LORA, EMBEDDING_LORA):
            raise BadInput(
                expected=f"a lora_magnitude_vector, since {CONFIG} says use_dora",
                found="none",
                where=self.folder,
                tensor=tensor,
                hint="save the adapter again",
            )
        if self.base is None:
            if change.needs_base:
                raise BadInput(
                    expected="a base, since this part of the adapter depends on it",
                    found="none",
                    where=self.folder,
                    tensor=tensor,
                    hint="give the base with --base",
                )
        elif not self.base.holds(tensor) or (self.base.shape(tensor) != change.shape and change.rows is None):
            raise BadInput(
                expected=f"a tensor of shape {self.base.shape(tensor)} as in the base" if self.base.holds(tensor) else "a tensor that the base has",
                found=f"shape {change.shape}",
                where=self.folder,
                tensor=tensor,
                hint=f"this adapter is for another base ({self.config.base_name or 'not recorded'}); give that one with --base",
            )


def started(adapter: Adapter) -> Adapter:
    """The same, with what its factors took out of the base at the start, if they did, whatever its configuration says of it.

    Raises:
        BadInput: the configuration says that they did, and there is no base, or one of which they hold no part; or they did so at random.
    """
    stated, base = adapter.config.start, adapter.base
    if base is None:
        if stated is None:
            return adapter
        raise BadInput(
            expected=f"the base, since init_lora_weights={stated} took the factors out of it",
            found="none",
            where=adapter.folder / CONFIG,
            hint="give it with --base, as it was before the training",
        )
    matrices = [tensor for tensor, change in adapter.changes.items() if change.form is LORA and change.start is None]
    looked = sorted(matrices, key=lambda tensor: math.prod(adapter.changes[tensor].shape))[:_LOOKED]
    if not looked or (stated is None and _start_of(adapter, looked[0], base) is None):
        return adapter
    starts = {_start_of(adapter, tensor, base) for tensor in looked}
    if len(starts) > 1 or starts == {None}:
        raise BadInput(
            expected="factors that all began as a part of the base, or none" if stated is None else f"factors that init_lora_weights={stated} leaves",
            found="others",
            where=adapter.folder / CONFIG,
            hint="give the base as it was before the training with --base; of a converted adapter, set init_lora_weights to true",
        )
    (start,) = starts
    if start == RANDOMISED:
        raise BadInput(
            expected="an adapter to an unchanged base",
            found="factors that were taken out of it by a randomised decomposition (pissa_niter_N), which cannot be made again",
            where=adapter.folder,
            hint="merge it into the model that its training ran on and give the checkpoint",
        )
    says = f"init_lora_weights={stated}" if stated else "which its configuration does not say"
    name = "OLoRA" if start == OLORA else "PiSSA"
    note = f"the factors of {adapter.name} began as a part of the base ({name}, {says}), which was taken off their product"
    return replace(adapter, start=start, notes=(*adapter.notes, note))


def _start_of(adapter: Adapter, tensor: str, base: Checkpoint) -> str | None:
    product, scale = adapter.delta(tensor), adapter.config.scale_of(adapter.changes[tensor].module)
    return start_of(base.read(tensor)[: product.shape[0]], product, scale) if isinstance(product, LowRank) else None


def _sum(deltas: Sequence[Delta]) -> Delta:
    """The sum of changes of one tensor; of low-rank ones by their factors side by side."""
    if len(deltas) == 1:
        return deltas[0]
    low = [delta for delta in deltas if isinstance(delta, LowRank)]
    if len(low) == len(deltas):
        return LowRank(torch.cat([delta.b for delta in low], dim=1), torch.cat([delta.a for delta in low], dim=0))
    total: Tensor = sum((delta.dense() for delta in deltas), torch.zeros(()))
    return Dense(total)
