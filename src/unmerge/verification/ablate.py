"""Surgical subtraction: theta - sum_i c_i dW_i, written as what the target is.

A checkpoint stays a checkpoint in its own dtype and shards, and what no component changes keeps its bytes; an adapter stays an adapter; a
state dict in memory becomes one file of weights;
``as_adapter`` writes the subtraction alone, as a LoRA to be loaded on the unchanged target. What of a component cannot be taken out is in the
record (``remaining``), and the caller is told.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from unmerge.checkpoints import Adapter, Checkpoint, Difference
from unmerge.checkpoints.adapter_config import CONFIG
from unmerge.checkpoints.alignment import StoredChange
from unmerge.checkpoints.hub import origin
from unmerge.checkpoints.in_memory import write_state
from unmerge.checkpoints.rewrite import rewrite
from unmerge.checkpoints.write_adapter import write_adapter
from unmerge.core.errors import BadInput
from unmerge.core.records import environment, write_json
from unmerge.core.staging import staged
from unmerge.decomposition import Dictionary, acting, decompose
from unmerge.decomposition.ablation_record import AblationRecord, Remaining
from unmerge.decomposition.alignment import aligned
from unmerge.decomposition.dictionary import Vector, notes_of
from unmerge.decomposition.run import DEFAULT_METHOD
from unmerge.vectors import Delta, Held, LowRank, row_slices
from unmerge.verification.placement import Changes, Placement, Removed, place, remaining
from unmerge.verification.subtract import less

RECORD, STATE = "ablation.json", "model.safetensors"
#: endings of files with weights
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf", ".h5", ".msgpack", ".onnx")
Watch = Callable[[Iterable[str]], Iterable[str]]


def parse_removals(texts: Iterable[str]) -> dict[str, float | None]:
    """Each ``NAME`` or ``NAME=COEFFICIENT``, by name."""
    asked: dict[str, float | None] = {}
    for text in texts:
        name, coefficient = _parse_removal(text)
        if name in asked:
            raise BadInput(
                expected="every component once", found=f"{name} twice", where=f"--remove {text}", hint="give it once, with one coefficient"
            )
        asked[name] = coefficient
    return asked


def _parse_removal(text: str) -> tuple[str, float | None]:
    name, equals, number = text.partition("=")
    try:
        coefficient = float(number) if equals else None
    except ValueError:
        coefficient = float("nan")
    if coefficient is not None and not math.isfinite(coefficient):
        raise BadInput(expected="a number after NAME=", found=repr(number), where=f"--remove {text}", hint="write, for example, pirate=0.5")
    return name, coefficient


def coefficients(
    target: Vector,
    dictionary: Dictionary,
    base: Checkpoint | None,
    asked: Mapping[str, float | None],
    method: str = DEFAULT_METHOD,
    watch: Watch = iter,
) -> tuple[list[tuple[Vector, float]], list[str]]:
    """What to subtract: each atom that was asked for, with its coefficient in the target unless one was given.

    Returns:
        ((atom, coefficient) pairs, warnings of how the inputs were read and of the decomposition).

    Raises:
        BadInput: an atom that the dictionary does not have, or that the decomposition does not find in the target.
    """
    atoms = {name: dictionary.named(name) for name in asked}
    if all(coefficient is not None for coefficient in asked.values()):
        stated = [(atoms[name], coefficient) for name, coefficient in asked.items() if coefficient is not None]
        return stated, notes_of(base, [target, *atoms.values()], dictionary)
    found = decompose(target, dictionary, base, method, watch)
    removed = []
    for name, given in asked.items():
        component = next((one for one in found.components if one.name == name), None)
        coefficient = given if given is not None else component.coefficient if component else None
        if coefficient is None:
            named = ", ".join(component.name for component in found.components) or "none"
            raise BadInput(
                expected=f"a component of the target ({named})", found=name, where=target.name, hint=f"give its coefficient: --remove {name}=0.5"
            )
        removed.append((acting(atoms[name], component if given is None else None), coefficient))
    return removed, found.warnings


def ablate(target: Vector, removed: Removed, out: Path, *, as_adapter: bool = False, watch: Watch = iter) -> AblationRecord:
    """Write the target without some components.

    Args:
        target: an adapter, or a checkpoint minus its base.
        removed: (task vector, coefficient) pairs.
        out: folder to make.
        as_adapter: write, instead of the ablated target, a LoRA that does the subtraction when it is loaded on the target.
        watch: wraps the loop over files, for a progress bar.

    Returns:
        The record, which lies in the folder as well.

    Raises:
        BadInput: the target cannot be written without the components, for the reason that it says.
    """
    target, *vectors = aligned([target, *(vector for vector, _ in removed)])
    removed = [(vector, coefficient) for vector, (_, coefficient) in zip(vectors, removed, strict=True)]
    if isinstance(target, Held):
        raise BadInput(
            expected="a target with weights to write without the component",
            found="changes alone",
            where=target.name,
            hint="make the target of two state dicts, task_vector(target, base)",
        )
    if as_adapter:
        if isinstance(target, Difference) and target.alignment is not None:
            raise BadInput(
                expected="a target that is laid out as its base is",
                found=target.alignment.summary,
                where=target.tuned.folder,
                hint="ablate the checkpoint instead (leave out --as-adapter)",
            )
        # on an adapter it is loaded beside the adapter, so that both have one base
        base_name = _name(target.tuned.folder) if isinstance(target, Difference) else target.config.base_name or ""
        return _write_adapter(out, removed, base_name, _record(target, removed, "adapter for the target", remaining(target, removed)))
    if isinstance(target, Difference):
        return _write_checkpoint(target, removed, out, watch)
    if target.is_plain and not target.skipped:
        return _write_adapter(
            out, [(target, -1.0), *removed], target.config.base_name or "", _record(target, removed, "adapter", remaining(target, removed))
        )
    raise BadInput(
        expected="a target that is a LoRA of linear modules",
        found=f"a {target.config.kind} adapter with other parts" + (f" ({target.skipped[0].tensor})" if target.skipped else ""),
        where=target.folder,
        hint="merge it into its base and ablate the checkpoint, or use --as-adapter",
    )


def _name(folder: Path) -> str:
    """What PEFT finds a model by: its name on the hub, or its folder."""
    found = origin(folder)
    return found.repository if found else str(folder)


def _write_checkpoint(target: Difference, removed: Removed, out: Path, watch: Watch) -> AblationRecord:
    target, changes = _as_stored(target, removed)
    tuned, placement = target.tuned, place(target.tuned, changes)
    if tuned.is_in_memory:
        record = _record(target, removed, "state dict", placement.remaining)
        stored = {tuned.parts[tensor].stored for tensor in placement.parts}
        values = {name: values for name in stored for values in _replaced(target, placement, name) or ()}
        with staged(out, record.model_dump(mode="json", exclude={"environment"})) as stage:
            with stage.piece(STATE) as piece:
                write_state(piece, tuned, values)
            write_json(stage.folder / RECORD, record)
        return record
    others = [path for path in _plain_files(tuned.folder) if path not in tuned.files.files]
    left_out = [path.name for path in others if _is_weights(path) and path.name != _index(tuned)]
    record = _record(target, removed, "checkpoint", placement.remaining, left_out)
    with staged(out, record.model_dump(mode="json", exclude={"environment"})) as stage:
        for file in watch([str(file) for file in tuned.files.files]):
            shard = Path(file)
            if not stage.has(shard.name):
                here = {name for name, holder in tuned.files.place.items() if holder == shard}
                with stage.piece(shard.name) as piece:
                    rewrite(piece, shard, here, lambda name: _replaced(target, placement, name))
        for path in others:
            if path.name not in left_out and not stage.has(path.name):
                with stage.piece(path.name) as piece:
                    shutil.copyfile(path, piece)
        write_json(stage.folder / RECORD, record)
    return record


def _as_stored(target: Difference, removed: Removed) -> tuple[Difference, Changes]:
    """The target as its files hold it, and the components in the same coordinates."""
    view = target.alignment
    if view is None:
        return target, removed
    return replace(target, tuned=view.stored), [(StoredChange(vector, view), coefficient) for vector, coefficient in removed]


def _replaced(target: Difference, placement: Placement, name: str) -> Iterable[Tensor] | None:
    """A stored tensor of the target less the components; read all the same, since a NaN is refused, where it is a weight that they leave alone."""
    tuned = target.tuned
    tensors = tuned.held_in.get(name, ())
    if not placement.parts.keys().isdisjoint(tensors):
        values = tuned.files.read(name)
        for tensor in tensors:
            if tensor in placement.parts:
                part = tuned.parts[tensor].of(values)
                part.copy_(less(part, (change.change for change in placement.parts[tensor])))
        return [values]
    if not target.shapes.keys().isdisjoint(tensors):
        rows = tuned.files.rows(name)
        return (rows[block] for block in row_slices(tuple(rows.shape)))
    return None


def _write_adapter(out: Path, removed: Removed, base_name: str, record: AblationRecord) -> AblationRecord:
    with staged(out, record.model_dump(mode="json", exclude={"environment"})) as stage:
        tensors = dict.fromkeys(tensor for vector, _ in removed for tensor in vector.shapes)
        changing = {tensor: [(vector, coefficient) for vector, coefficient in removed if tensor in vector.shapes] for tensor in tensors}
        deltas = {_own_name(parts[0][0], tensor): _joined(parts, tensor) for tensor, parts in changing.items()}
        with stage.piece("adapter") as piece:
            write_adapter(piece, deltas, base_name)
        for path in sorted((stage.folder / "adapter").iterdir()):
            path.rename(stage.folder / path.name)
        (stage.folder / "adapter").rmdir()
        write_json(stage.folder / RECORD, record)
    return record


def _own_name(vector: Vector, tensor: str) -> str:
    """What an adapter itself calls a tensor: PEFT finds it in the model by that name, whatever the base's file has."""
    return f"{vector.changes[tensor].module}.{tensor.rpartition('.')[2]}" if isinstance(vector, Adapter) and tensor in vector.changes else tensor


def _joined(removed: Removed, tensor: str) -> LowRank:
    """-sum c_i B_i A_i as one pair of factors."""
    parts = [_low_rank(vector, tensor).scaled(-coefficient) for vector, coefficient in removed]
    return LowRank(torch.cat([part.b for part in parts], dim=1), torch.cat([part.a for part in parts], dim=0))


def _low_rank(vector: Vector, tensor: str) -> LowRank:
    delta: Delta = vector.delta(tensor)
    # the factors of an embedding or of a transposed matrix would have to change places
    if not (isinstance(vector, Adapter) and vector.is_plain and isinstance(delta, LowRank)):
        raise BadInput(
            expected="components that are LoRA of linear modules, to be written as an adapter",
            found="an adapter with other parts" if isinstance(delta, LowRank) else "a dense change",
            where=vector.name,
            tensor=tensor,
            hint="ablate the checkpoint instead (leave out --as-adapter)",
        )
    return delta


def _index(checkpoint: Checkpoint) -> str | None:
    """The name of the index that lists the checkpoint's shards; None for a single file."""
    return None if STATE in {file.name for file in checkpoint.files.files} else "model.safetensors.index.json"


def _plain_files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.iterdir()) if path.is_file() and not path.name.startswith("."))


def _is_weights(path: Path) -> bool:
    """Whether a file holds weights, or lists the files that do, in whichever format; or would have an adapter loaded on top of them."""
    return path.name.removesuffix(".index.json").endswith(_WEIGHTS) or path.name == CONFIG


def _record(target: Vector, removed: Removed, form: str, stays: list[Remaining], left_out: Sequence[str] = ()) -> AblationRecord:
    return AblationRecord(
        target=target.source(),
        removed={vector.name: coefficient for vector, coefficient in removed},
        components={vector.name: vector.source() for vector, _ in removed},
        form=form,
        left_out=list(left_out),
        remaining=stays,
        environment=environment(),
    )
