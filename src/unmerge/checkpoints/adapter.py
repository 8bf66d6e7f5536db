"""A PEFT adapter on disk as a task vector."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from unmerge.checkpoints.adapter_config import CONFIG, AdapterConfig
from unmerge.checkpoints.checkpoint import Checkpoint
from unmerge.checkpoints.files import TensorFiles
from unmerge.checkpoints.forms import LORA, LORA_BIAS, PARTS, SAVED, WEIGHT_FORMS, Form
from unmerge.core.errors import BadInput
from unmerge.core.records import Source
from unmerge.vectors import Delta, Shape, Skipped

WEIGHTS = "adapter_model"
_PREFIX = "base_model.model."
#: what PEFT puts between a wrapped module and its own tensors
_WRAPPERS = (".base_layer", ".modules_to_save", ".original_module")


@dataclass(frozen=True)
class Change:
    """One tensor of the base that the adapter changes.

    Attributes:
        module: the module's name.
        form: what is done to it.
        keys: part -> name in the adapter's file.
        shape: of the change.
    """

    module: str
    form: Form
    keys: Mapping[str, str]
    shape: Shape


@dataclass(frozen=True)
class Adapter:
    """A PEFT adapter folder, read tensor by tensor.

    Attributes:
        name: its folder's name.
        folder: where it lies.
        config: its settings.
        changes: by tensor of the base.
        base: the base, where it is given; DoRA and saved modules need it.
    """

    name: str
    folder: Path
    config: AdapterConfig
    changes: Mapping[str, Change]
    files: TensorFiles
    base: Checkpoint | None

    @staticmethod
    def open(folder: Path, base: Checkpoint | None = None) -> Adapter:
        """Open an adapter; only headers are read.

        Args:
            folder: with ``adapter_config.json`` and ``adapter_model.safetensors``.
            base: checked against where given; needed for DoRA, saved modules and trained biases.

        Raises:
            BadInput: no adapter, a type that does not add, damaged files, another base.
        """
        config = AdapterConfig.read(folder)
        files = TensorFiles.find(folder, WEIGHTS)
        changes = _changes(config, files)
        if not changes:
            raise BadInput(expected="adapter tensors", found="none", where=files.files[0] if files.files else folder, hint="save the adapter again")
        adapter = Adapter(folder.resolve().name, folder, config, changes, files, base)
        adapter._check(base)
        return adapter

    @property
    def shapes(self) -> Mapping[str, Shape]:
        return {tensor: change.shape for tensor, change in self.changes.items()}

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """Nothing: a tensor that cannot be read is an error."""
        return ()

    @property
    def is_plain(self) -> bool:
        """Whether it is a LoRA of linear modules and nothing else, so that it can be written as factors again."""
        return all(change.form is LORA for change in self.changes.values())

    def delta(self, tensor: str) -> Delta:
        change = self.changes[tensor]
        parts = {part: self.files.read(key) for part, key in change.keys.items()}
        before = self.base.read(tensor) if change.form.needs_base and self.base is not None else None
        return change.form.delta(parts, self.config.scale_of(change.module), self.config.transposed, before)

    def source(self) -> Source:
        """Hashes of weights and configuration."""
        return self.files.source(self.folder / CONFIG)

    def _check(self, base: Checkpoint | None) -> None:
        for tensor, change in self.changes.items():
            where, named = self.folder, tensor
            if change.form is LORA and (found := self.files.shapes[change.keys["lora_A.weight"]][0]) != self.config.rank_of(change.module):
                raise BadInput(
                    expected=f"rank {self.config.rank_of(change.module)} as {CONFIG} says",
                    found=f"rank {found}",
                    where=where,
                    tensor=named,
                    hint="mend r or rank_pattern in the configuration",
                )
            if base is None:
                if change.form.needs_base:
                    raise BadInput(
                        expected="a base, since this part of the adapter depends on it",
                        found="none",
                        where=where,
                        tensor=named,
                        hint="give the base with --base",
                    )
            elif not base.holds(tensor) or base.shape(tensor) != change.shape:
                raise BadInput(
                    expected=f"a tensor of shape {base.shape(tensor)} as in the base" if base.holds(tensor) else "a tensor that the base has",
                    found=f"shape {change.shape}",
                    where=where,
                    tensor=named,
                    hint=f"this adapter is for another base ({self.config.base_name or 'not recorded'}); give that one with --base",
                )


def _changes(config: AdapterConfig, files: TensorFiles) -> dict[str, Change]:
    modules: dict[str, dict[str, str]] = {}
    changes: dict[str, Change] = {}
    for key in files.place:
        inner = key.removeprefix(_PREFIX)
        part = next((part for part in PARTS if inner.endswith("." + part)), None)
        if part is not None:
            modules.setdefault(inner.removesuffix("." + part), {})[PARTS[part]] = key
        else:
            tensor = _unwrapped(inner)
            if not tensor.endswith((".weight", ".bias")) or "lora_" in tensor or "trainable_tokens" in tensor:
                raise _unknown(files, key, config.kind)
            changes[tensor] = Change(tensor.rpartition(".")[0], SAVED, {"saved": key}, SAVED.shape({"saved": files.shapes[key]}, False))
    for module, keys in modules.items():
        if bias := keys.pop("lora_B.bias", None):
            changes[f"{module}.bias"] = Change(module, LORA_BIAS, {"lora_B.bias": bias}, files.shapes[bias])
        form = next((form for form in WEIGHT_FORMS if form.parts == keys.keys()), None)
        shapes = {part: files.shapes[key] for part, key in keys.items()}
        if form is None or any(len(shape) > 2 for shape in shapes.values()):
            raise _unknown(files, next(iter(keys.values())), config.kind)
        changes[f"{module}.weight"] = Change(module, form, keys, form.shape(shapes, config.transposed))
    return dict(sorted(changes.items()))


def _unwrapped(name: str) -> str:
    for wrapper in _WRAPPERS:
        name = name.replace(f"{wrapper}.default", "").replace(wrapper, "")
    return name


def _unknown(files: TensorFiles, key: str, kind: str) -> BadInput:
    return BadInput(
        expected=f"tensors of a {kind} adapter to linear or embedding modules",
        found="a tensor of another kind",
        where=files.place[key],
        tensor=key,
        hint="merge it into its base (merge_and_unload) and give the checkpoint",
    )
