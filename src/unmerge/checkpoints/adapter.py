"""A PEFT adapter on disk as a task vector."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from unmerge.checkpoints.adapter_config import CONFIG, AdapterConfig
from unmerge.checkpoints.checkpoint import HEAD, Checkpoint, is_embedding, is_vocabulary
from unmerge.checkpoints.files import GATHER, TensorFiles
from unmerge.checkpoints.forms import EMBEDDING_LORA, LORA, LORA_BIAS, PARTS, SAVED, VECTORS, WEIGHT_FORMS, Form
from unmerge.checkpoints.hub import short_name
from unmerge.checkpoints.initialisation import OLORA, RANDOMISED, less, start_of, taken_out
from unmerge.core.errors import BadInput
from unmerge.core.records import Source
from unmerge.vectors import Delta, Dense, LowRank, Shape, Skipped, wide

WEIGHTS = "adapter_model"
_PREFIX = "base_model.model."
#: what PEFT puts between a wrapped module and its own tensors
_WRAPPERS = (".base_layer", ".modules_to_save", ".original_module")
#: architectures whose matrices are transposed (transformers' Conv1D), and the modules of theirs that are
_CONV1D_MODELS = ("gpt2", "openai-gpt", "imagegpt", "decision_transformer", "clvp")
_CONV1D_MODULES = ("c_attn", "q_attn", "c_proj", "c_fc")
#: modules that are looked at to tell whether the factors began as a part of the base; PEFT initialises all of them alike
_LOOKED = 3


@dataclass(frozen=True)
class Change:
    """One tensor of the base that the adapter changes.

    Attributes:
        module: the module's name.
        form: what is done to it.
        keys: part -> name in the adapter's file.
        shape: of the change.
        transposed: the base stores this matrix (in, out).
        start: name in the adapter's file of a copy of the base's tensor that the change starts from, where it holds one.
    """

    module: str
    form: Form
    keys: Mapping[str, str]
    shape: Shape
    transposed: bool = False
    start: str | None = None

    @property
    def needs_base(self) -> bool:
        """Whether the change depends on the base's weights."""
        return self.form.needs_base or self.start is not None


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
        skipped: tensors stored whole that the base lacks, and tensors whose vocabulary size differs.
        modules: a regular expression that is found in the names of the tensors that count; all do where none is given.
        notes: what the user should know of how it was read.
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
    notes: tuple[str, ...] = ()
    start: str | None = None
    _taken: dict[str, LowRank] = field(default_factory=dict, repr=False, compare=False)

    @staticmethod
    def open(folder: Path, base: Checkpoint | None = None, config: AdapterConfig | None = None) -> Adapter:
        """Open an adapter; only headers are read.

        Args:
            folder: with ``adapter_config.json`` and ``adapter_model.safetensors``.
            base: checked against where given; needed for DoRA, saved modules, trained biases, PiSSA and OLoRA.
            config: taken in place of ``adapter_config.json`` where there is none.

        Raises:
            BadInput: no adapter, a type that does not add, damaged files, another base.
        """
        config = config or AdapterConfig.read(folder)
        files = TensorFiles.find(folder, WEIGHTS)
        changes = _changes(config, files, base)
        skipped: tuple[Skipped, ...] = ()
        if base is not None:
            if config.tied and base.is_tied and any(is_embedding(tensor) for tensor in changes):
                changes.pop(HEAD, None)  # the embedding under another name: it must not count twice
            skipped = tuple(Skipped(tensor, reason) for tensor, change in changes.items() if (reason := _left_out(tensor, change, base)))
            for skip in skipped:
                changes.pop(skip.tensor)
        if not changes:
            found = f"none ({skipped[0].tensor} is left out: {skipped[0].reason})" if skipped else "none"
            raise BadInput(expected="adapter tensors", found=found, where=folder / f"{WEIGHTS}.safetensors", hint="save the adapter again")
        adapter = Adapter(short_name(folder), folder, config, changes, files, base, skipped)
        for tensor, change in changes.items():
            adapter._check(tensor, change)
        return started(adapter)

    @property
    def shapes(self) -> Mapping[str, Shape]:
        return {tensor: change.shape for tensor, change in self.changes.items()}

    @property
    def needs_base(self) -> bool:
        """Whether a change depends on the base's weights."""
        return self.start is not None or any(change.needs_base for change in self.changes.values())

    @property
    def is_plain(self) -> bool:
        """Whether it is a LoRA of linear modules, none of them transposed, and nothing else, so that it can be written as factors again."""
        return all(change.form is LORA and change.start is None and not change.transposed for change in self.changes.values())

    def delta(self, tensor: str) -> Delta:
        change = self.changes[tensor]
        parts = {part: self.files.read(key) for part, key in change.keys.items()}
        before = self.base.read(tensor) if change.needs_base and self.base is not None else None
        start = before if change.start is None else self.files.read(change.start)
        step = change.form.delta(parts, self.config.scale_of(change.module), change.transposed, start)
        if self.start is not None and change.form is LORA and self.base is not None and isinstance(step, LowRank):
            if tensor not in self._taken:
                self._taken[tensor] = taken_out(self.start, self.base.read(tensor), step, self.config.scale_of(change.module))
            step = less(step, self._taken[tensor])
        if start is None or before is None or start is before:
            return step
        # the adapter brings its own copy of the base's tensor: PEFT loads it, so that it counts where it differs
        moved = wide(start) - wide(before)
        return Dense(step.dense() + moved) if bool(moved.any()) else step

    def source(self) -> Source:
        """Hashes of weights and configuration."""
        return self.files.source(self.folder / CONFIG)

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
        elif not self.base.holds(tensor) or self.base.shape(tensor) != change.shape:
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
    return start_of(base.read(tensor), product, scale) if isinstance(product, LowRank) else None


def _left_out(tensor: str, change: Change, base: Checkpoint) -> str | None:
    """Why a change is left out, if it is; an adapter to another base is refused, not left out."""
    if not base.holds(tensor):
        return "only the adapter has it" if change.form is SAVED else None
    theirs = base.shape(tensor)
    if is_vocabulary(tensor) and change.shape[1:] == theirs[1:] and change.shape != theirs:
        return f"vocabulary of {change.shape[0]} in the adapter, {theirs[0]} in the base"
    return None


def _changes(config: AdapterConfig, files: TensorFiles, base: Checkpoint | None) -> dict[str, Change]:
    """What each tensor of the file belongs to, by tensor of the base."""
    modules: dict[str, dict[str, str]] = {}
    whole: dict[str, str] = {}
    for key in files.place:
        inner = key.removeprefix(_PREFIX)
        part = next((part for part in PARTS if inner.endswith("." + part)), None)
        if part is not None:
            modules.setdefault(inner.removesuffix("." + part), {})[PARTS[part]] = key
            continue
        tensor = _unwrapped(inner)
        if not tensor.endswith((".weight", ".bias")) or "lora_" in tensor or "trainable_tokens" in tensor:
            raise _unreadable(config, files, key, "a tensor of another kind")
        if 0 in files.shapes[key]:
            raise _unreadable(config, files, key, f"shape {files.shapes[key]}", GATHER)
        if tensor in whole:
            raise _unreadable(config, files, key, f"a second copy of {tensor}")
        whole[tensor] = key
    changes: dict[str, Change] = {}
    for module, keys in modules.items():
        transposed = _is_transposed(config, module, base)
        bias = keys.pop("lora_B.bias", None)
        if bias is not None:
            start = whole.pop(f"{module}.bias", None)
            changes[f"{module}.bias"] = _change(config, files, module, LORA_BIAS, {"lora_B.bias": bias}, transposed, start)
        form = next((form for form in WEIGHT_FORMS if form.parts == keys.keys()), None)
        if form is None:
            raise _unreadable(config, files, next(iter(keys.values()), bias or ""), f"the parts {', '.join(keys) or 'lora_B.bias'} of {module} alone")
        changes[f"{module}.weight"] = _change(config, files, module, form, keys, transposed, whole.pop(f"{module}.weight", None))
    for tensor, key in whole.items():
        changes[tensor] = Change(tensor.rpartition(".")[0], SAVED, {"saved": key}, files.shapes[key])
    return dict(sorted(changes.items()))


def _change(
    config: AdapterConfig, files: TensorFiles, module: str, form: Form, keys: Mapping[str, str], transposed: bool, start: str | None
) -> Change:
    shapes = {part: files.shapes[key] for part, key in keys.items()}
    for part, shape in shapes.items():
        if len(shape) != (1 if part in VECTORS else 2) or 0 in shape:
            gathered = len(shape) < 2 or 0 in shape  # as DeepSpeed ZeRO-3 and FSDP leave them
            hint = GATHER if gathered else None
            raise _unreadable(config, files, keys[part], f"shape {shape}", hint)
    try:
        shape = form.shape(shapes, transposed)
    except ValueError as error:
        raise _unreadable(config, files, next(iter(keys.values())), f"{error}, which do not fit together", "save the adapter again") from error
    return Change(module, form, keys, shape, transposed, start)


def _is_transposed(config: AdapterConfig, module: str, base: Checkpoint | None) -> bool:
    """Whether the base stores a module's matrix (in, out).

    ``fan_in_fan_out`` is one setting for all modules, and PEFT itself goes by the kind of each: with a Conv1D and a linear
    module (GPT-2's head) in one adapter the setting that is saved is that of the last one.
    """
    if base is not None and base.config.get("model_type") in _CONV1D_MODELS:
        return module.rpartition(".")[2] in _CONV1D_MODULES
    return config.transposed


def _unwrapped(name: str) -> str:
    for wrapper in _WRAPPERS:
        name = name.replace(f"{wrapper}.default", "").replace(wrapper, "")
    return name


def _unreadable(config: AdapterConfig, files: TensorFiles, key: str, found: str, hint: str | None = None) -> BadInput:
    return BadInput(
        expected=f"tensors of a {config.kind} adapter to linear or embedding modules",
        found=found,
        where=files.place[key],
        tensor=key,
        hint=hint or "merge it into its base (merge_and_unload) and give the checkpoint",
    )
