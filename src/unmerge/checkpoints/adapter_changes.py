"""Which tensors of the base an adapter changes, and how: its file against the base's names and shapes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from unmerge.checkpoints.adapter_config import AdapterConfig
from unmerge.checkpoints.adapter_keys import Keys, unreadable
from unmerge.checkpoints.checkpoint import Checkpoint
from unmerge.checkpoints.files import GATHER, TensorFiles
from unmerge.checkpoints.forms import LORA_BIAS, SAVED, VECTORS, WEIGHT_FORMS, EmbeddingDora, EmbeddingLora, Form
from unmerge.checkpoints.tensor_names import match_names
from unmerge.checkpoints.vocabulary import is_head, is_outside, rows_left_out
from unmerge.vectors import Shape, Skipped


@dataclass(frozen=True)
class Change:
    """One tensor of the base that the adapter changes.

    Attributes:
        module: the module's name in the adapter.
        form: what is done to it.
        keys: part -> name in the adapter's file.
        shape: of the change.
        transposed: the base stores this matrix (in, out).
        start: name in the adapter's file of a copy of the base's tensor that the change starts from, where it holds one.
        rows: how many of the first rows count; None for all.
    """

    module: str
    form: Form
    keys: Mapping[str, str]
    shape: Shape
    transposed: bool = False
    start: str | None = None
    rows: int | None = None

    @property
    def needs_base(self) -> bool:
        """Whether the change depends on the base's weights."""
        return self.form.needs_base or self.start is not None

    def first_rows(self, count: int) -> Change:
        """The same, of the first rows alone."""
        return replace(self, rows=count, shape=(count, *self.shape[1:]))


@dataclass(frozen=True)
class Changes:
    """What an adapter changes.

    Attributes:
        by_tensor: the changes, by tensor of the base.
        names: the adapter's name for a tensor -> the base's, of those that have two.
        skipped: tensors that cannot be read, or that the base lacks.
        left_rows: tokens' rows that only the adapter or only the base has; the others count.
    """

    by_tensor: dict[str, Change]
    names: dict[str, str] = field(default_factory=dict)
    skipped: tuple[Skipped, ...] = ()
    left_rows: tuple[Skipped, ...] = ()


def changes_of(config: AdapterConfig, files: TensorFiles, keys: Keys, base: Checkpoint | None) -> Changes:
    """Read what an adapter changes; only headers are read.

    Raises:
        BadInput: parts that make no form, or names that may be one tensor of the base or another.
    """
    changes = _own_changes(config, files, keys)
    if base is None:
        lacking = [tensor for tensor, change in changes.items() if change.needs_base]
        if len(lacking) < len(changes):
            changes = {tensor: change for tensor, change in changes.items() if tensor not in lacking}
            return Changes(changes, skipped=tuple(Skipped(tensor, "it depends on the base, and none is given") for tensor in lacking))
        return Changes(changes)
    names = match_names({name: change.shape for name, change in changes.items() if not base.holds(name)}, _free(base, changes), files.folder)
    changes = {names.get(name, name): change for name, change in changes.items()}
    changes = dict(sorted(_oriented(config, changes, base).items()))
    if config.tied and base.is_tied and base.embedding in changes:
        changes = {tensor: change for tensor, change in changes.items() if not is_head(tensor)}  # the embedding under another name
    skipped, left_rows = [], []
    for tensor, change in list(changes.items()):
        if not base.holds(tensor) and change.form is SAVED:
            skipped.append(Skipped(tensor, "only the adapter has it"))
        elif base.holds(tensor) and base.is_vocabulary(tensor) and change.shape[1:] == base.shape(tensor)[1:] and change.shape != base.shape(tensor):
            ours, theirs = change.shape[0], base.shape(tensor)[0]
            if isinstance(change.form, EmbeddingDora):  # its norms are over the whole vocabulary
                skipped.append(Skipped(tensor, f"vocabulary of {ours} in the adapter, {theirs} in the base"))
            else:
                left_rows.append(Skipped(tensor, rows_left_out(ours, theirs, "adapter", "base")))
                changes[tensor] = change.first_rows(min(ours, theirs))
    for skip in skipped:
        changes.pop(skip.tensor)
    return Changes(changes, names, tuple(skipped), tuple(left_rows))


def _free(base: Checkpoint, changes: Mapping[str, Change]) -> dict[str, Shape]:
    """The tensors of the base that the adapter does not call by their names."""
    return {tensor: shape for tensor, shape in base.shapes.items() if tensor not in changes}


def _own_changes(config: AdapterConfig, files: TensorFiles, keys: Keys) -> dict[str, Change]:
    """The changes by the adapter's own names, every matrix (out, in)."""
    whole = dict(keys.whole)
    changes: dict[str, Change] = {}
    for module, parts in keys.modules.items():
        bias = parts.pop("lora_B.bias", None)
        if bias is not None:
            start = whole.pop(f"{module}.bias", None)
            changes[f"{module}.bias"] = _change(config, files, module, LORA_BIAS, {"lora_B.bias": bias}, start)
        form = next((form for form in WEIGHT_FORMS if form.parts == parts.keys()), None)
        if form is None:
            found = f"the parts {', '.join(parts) or 'lora_B.bias'} of {module} alone"
            raise unreadable(config, files, next(iter(parts.values()), bias or ""), found)
        changes[f"{module}.weight"] = _change(config, files, module, form, parts, whole.pop(f"{module}.weight", None))
    for tensor, key in whole.items():
        changes[tensor] = Change(tensor.rpartition(".")[0], SAVED, {"saved": key}, files.shapes[key])
    return dict(sorted(changes.items()))


def _change(config: AdapterConfig, files: TensorFiles, module: str, form: Form, keys: Mapping[str, str], start: str | None) -> Change:
    shapes = {part: files.shapes[key] for part, key in keys.items()}
    for part, shape in shapes.items():
        if len(shape) != (1 if part in VECTORS else 2) or 0 in shape:
            gathered = len(shape) < 2 or 0 in shape  # as DeepSpeed ZeRO-3 and FSDP leave them
            hint = GATHER if gathered else None
            raise unreadable(config, files, keys[part], f"shape {shape}", hint)
    try:
        shape = form.shape(shapes, transposed=False)
    except ValueError as error:
        raise unreadable(config, files, next(iter(keys.values())), f"{error}, which do not fit together", "save the adapter again") from error
    return Change(module, form, keys, shape, start=start)


def _oriented(config: AdapterConfig, changes: Mapping[str, Change], base: Checkpoint) -> dict[str, Change]:
    """The changes as the base stores its matrices, some of them (in, out).

    ``fan_in_fan_out`` is wrong in many adapters, since PEFT mends it when it loads them, and it is one setting for modules of two kinds. Shapes
    tell; of a square matrix the base does, or else the adapter's other modules. The setting is the last resort.
    """
    turned = {tensor: _is_turned(tensor, change, base) for tensor, change in changes.items()}
    others = {turn for tensor, turn in turned.items() if turn is not None and not is_outside(tensor) and len(changes[tensor].shape) == 2}
    otherwise = others.pop() if len(others) == 1 else config.transposed
    oriented = {}
    for tensor, change in changes.items():
        turn = otherwise if turned[tensor] is None else turned[tensor]
        oriented[tensor] = replace(change, shape=change.shape[::-1], transposed=True) if turn else change
    return oriented


def _is_turned(tensor: str, change: Change, base: Checkpoint) -> bool | None:
    """Whether the base stores the matrix of a change (in, out); None where a square one could be either."""
    if len(change.shape) != 2 or isinstance(change.form, EmbeddingLora) or change.form is SAVED or not base.holds(tensor):
        return False
    theirs = base.shape(tensor)
    if change.shape[0] != change.shape[1]:
        return change.shape[::-1] == theirs
    return base.is_transposed(tensor) if change.shape == theirs else False
