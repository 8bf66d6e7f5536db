"""Opening what a caller names: by its folder, by its name on the hub, or from memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias, cast

from torch import Tensor

from unmerge.checkpoints import Checkpoint, checkpoint_in_memory
from unmerge.core.errors import BadInput
from unmerge.core.sources import MEMORY
from unmerge.decomposition import Dictionary, open_base, open_vector
from unmerge.decomposition.dictionary import Vector, only, subtracted
from unmerge.vectors import Delta, Held

#: a folder or a name on the hub (``owner/name`` or ``owner/name@revision``)
Place: TypeAlias = Path | str
StateDict: TypeAlias = Mapping[str, Tensor]
BaseLike: TypeAlias = Place | StateDict | Checkpoint
TargetLike: TypeAlias = Place | Vector
DictionaryLike: TypeAlias = Place | Sequence[Place] | Dictionary


def open_model(model: BaseLike) -> Checkpoint:
    """Open a model; of files only the headers are read.

    Args:
        model: a folder with a checkpoint in safetensors, a name on the hub, or a state dict.

    Returns:
        The checkpoint, whose tensors are read when they are asked for.

    Raises:
        BadInput: no checkpoint, a pickle, damaged or quantised weights, or something else than tensors in the state dict.
    """
    if isinstance(model, Checkpoint):
        return model
    return checkpoint_in_memory(model) if isinstance(model, Mapping) else open_base(Path(model))


def task_vector(
    target: TargetLike | StateDict | Checkpoint | Mapping[str, Delta],
    base: BaseLike | None = None,
    *,
    name: str | None = None,
    modules: str | None = None,
) -> Vector:
    """Open a task vector: what was added to a base model's weights.

    Args:
        target: an adapter's or a checkpoint's folder or name on the hub; a state dict, whose tensors must not change while the task vector
            is used; or changes by tensor as ``LowRank(b, a)``, with b (out, rank) and a (rank, in), or as ``Dense(values)``, of the tensor's shape.
        base: the model that the target was made from. Checkpoints and state dicts need it; an adapter among plain LoRA adapters does not.
        name: what to call it. Default: the folder's name, or ``target``.
        modules: a regular expression; tensors in whose names it is not found are left out.

    Returns:
        The task vector. Of a checkpoint and of a state dict it knows the base's weights, so that coefficients account for their rounding.

    Raises:
        BadInput: neither adapter nor checkpoint, no base where one is needed, or shapes that are not the base's.
    """
    opened = None if base is None else open_model(base)
    vector = only(_opened(target, opened), modules)
    return replace(vector, name=name) if name is not None else vector


def _opened(target: TargetLike | StateDict | Checkpoint | Mapping[str, Delta], base: Checkpoint | None) -> Vector:
    if isinstance(target, str | Path):
        return open_vector(Path(target), base)
    if not isinstance(target, Mapping | Checkpoint):
        return target
    if isinstance(target, Mapping) and target and all(isinstance(change, Delta) for change in target.values()):
        return Held("target", cast("Mapping[str, Delta]", target))
    if base is None:
        hint = "give the base, or changes as unmerge.LowRank(b, a) and unmerge.Dense(values)"
        raise BadInput(expected="a base to subtract from the state dict", found="none", where=MEMORY, hint=hint)
    tuned = target if isinstance(target, Checkpoint) else checkpoint_in_memory(target)
    return subtracted("target" if tuned.is_in_memory else tuned.folder.name, tuned, base)


def opened(
    target: TargetLike, dictionary: DictionaryLike, base: BaseLike | None, modules: str | None = None
) -> tuple[Vector, Dictionary, Checkpoint | None]:
    """A target, a dictionary and a base, all open.

    Raises:
        BadInput: one of them cannot be read.
    """
    model = None if base is None else open_model(base)
    atoms = dictionary if isinstance(dictionary, Dictionary) else Dictionary.open(dictionary, model)
    return task_vector(target, model, modules=modules), atoms.only(modules), model


def with_base(target: TargetLike, dictionary: DictionaryLike, base: BaseLike) -> tuple[Vector, Dictionary, Checkpoint]:
    """The same where a base is needed."""
    model = open_model(base)
    vector, atoms, _ = opened(target, dictionary, model)
    return vector, atoms, model
