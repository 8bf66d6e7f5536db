"""Phase 3 as files: task vectors at the places of a mask.

    OUT/compressed.json                    what was kept, of what (the record)
    OUT/places.safetensors                 tensor -> places (k,), int64, ascending; the place of entry (i, j) is i x columns + j
    OUT/dictionary/NAME.safetensors        tensor -> values (k,), float64, of one micro-task vector
    OUT/targets/NAME.safetensors           the same of the target

A tensor that a vector does not change is not in its file. Solving on these files is solving in the space ``compressed``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from unmerge.checkpoints import Checkpoint
from unmerge.checkpoints.write import save_tensors
from unmerge.core.errors import BadInput
from unmerge.core.records import Environment, Source, environment, read_json, sha256, write_json
from unmerge.core.staging import Stage, staged
from unmerge.decomposition.alignment import aligned_with
from unmerge.decomposition.dictionary import Dictionary, Vector
from unmerge.decomposition.mask import ENTRIES, mask
from unmerge.decomposition.result import SkippedTensor
from unmerge.vectors import Dense, Held, Skipped, TaskVector, at

SCHEMA = "unmerge/compressed/1"
RECORD, PLACES, ATOMS, TARGETS = "compressed.json", "places.safetensors", "dictionary", "targets"

Watch = Callable[[Iterable[str]], Iterable[str]]


class Over(StrEnum):
    """Which task vectors the mask is made from."""

    DICTIONARY = "dictionary"
    TARGET = "target"
    BOTH = "both"


class KeptTensor(BaseModel):
    """A tensor of the model, and how many of its entries were kept."""

    shape: tuple[int, ...]
    entries: int


class CompressedRecord(BaseModel):
    """What was compressed, and how.

    Attributes:
        asked: how many entries were asked for.
        entries: how many were kept.
        over: which task vectors the mask is made from.
        base: the base, where one was given.
        dictionary: where each micro-task vector came from, by name.
        targets: where each target came from, by name.
        tensors: what was kept of each tensor.
        skipped: the tensors that a vector leaves out, by its file.
        files: SHA-256 of the files beside the record.
    """

    model_config = ConfigDict(serialize_by_alias=True)

    schema_: str = Field(SCHEMA, alias="schema")
    asked: int
    entries: int
    over: Over
    base: Source | None
    dictionary: dict[str, Source]
    targets: dict[str, Source]
    tensors: dict[str, KeptTensor]
    skipped: dict[str, list[SkippedTensor]]
    files: dict[str, str]
    environment: Environment


@dataclass(frozen=True)
class Compressed:
    """Compressed task vectors in memory; each tensor has become the (k,) values at its places.

    Attributes:
        places: (k,) by tensor.
        dictionary: the micro-task vectors.
        targets: the targets.
        record: where they came from.
    """

    places: Mapping[str, Tensor]
    dictionary: tuple[Held, ...]
    targets: tuple[Held, ...]
    record: CompressedRecord


def compress(
    dictionary: Dictionary,
    target: Vector | None,
    base: Checkpoint | None,
    out: Path,
    entries: int = ENTRIES,
    over: Over = Over.DICTIONARY,
    watch: Watch = iter,
) -> CompressedRecord:
    """Write the micro-task vectors and a target at the places of their largest entries.

    Args:
        dictionary: the micro-tasks.
        target: a target, if there is one.
        base: the base, where one was given; for the record.
        out: the folder to make. A run that was cut short is taken up where it stopped.
        entries: how many entries to keep, over all tensors.
        over: which task vectors the mask is made from.
        watch: wraps the loops over tensors and vectors, for a progress bar.

    Raises:
        BadInput: no entries asked for, a mask over a target without a target, or vectors that do not fit together.
        BadOutput: the folder exists, or cannot be written.
    """
    if target is not None:
        target, dictionary = aligned_with(target, dictionary)
    masked = _masked(dictionary, target, over)
    if entries < 1:
        raise BadInput(expected="at least one entry", found=str(entries), where="--entries", hint="leave it out for 100000")
    vectors: dict[str, Vector] = {f"{ATOMS}/{atom.name}.safetensors": atom for atom in dictionary.atoms}
    if target is not None:
        vectors[f"{TARGETS}/{target.name}.safetensors"] = target
    sources = {file: vector.source() for file, vector in vectors.items()}
    base_source = base.source() if base else None
    job = [entries, over, base_source and base_source.sha256, {file: found.sha256 for file, found in sources.items()}]
    with staged(out, job) as stage:
        places = _places(stage, masked, entries, watch)
        for file in watch(vectors):
            if not stage.has(file):
                with stage.piece(file) as piece:
                    save_tensors(piece, _values(vectors[file], places))
        record = CompressedRecord(
            asked=entries,
            entries=sum(len(kept) for kept in places.values()),
            over=over,
            base=base_source,
            dictionary={atom.name: sources[f"{ATOMS}/{atom.name}.safetensors"] for atom in dictionary.atoms},
            targets={target.name: sources[f"{TARGETS}/{target.name}.safetensors"]} if target is not None else {},
            tensors={tensor: KeptTensor(shape=_shape(masked, tensor), entries=len(kept)) for tensor, kept in places.items()},
            skipped={
                file: [SkippedTensor(tensor=skip.tensor, reason=skip.reason) for skip in vector.skipped]
                for file, vector in vectors.items()
                if vector.skipped
            },
            files={file: sha256(stage.folder / file) for file in (PLACES, *vectors)},
            environment=environment(),
        )
        write_json(stage.folder / RECORD, record)
    return record


def read_compressed(folder: Path) -> Compressed:
    """Read what ``compress`` wrote.

    Raises:
        BadInput: a file is missing, damaged, or not the one that the record speaks of.
    """
    try:
        record = CompressedRecord.model_validate(read_json(folder / RECORD, "a record of compressed task vectors"))
    except ValidationError as error:
        raise BadInput(expected=f"the schema {SCHEMA}", found="another one", where=folder / RECORD, hint="run unmerge compress again") from error

    def held(room: str, name: str) -> Held:
        file = f"{room}/{name}.safetensors"
        skipped = tuple(Skipped(skip.tensor, skip.reason) for skip in record.skipped.get(file, []))
        return Held(name, {tensor: Dense(values) for tensor, values in _load(folder, file, record).items()}, skipped)

    return Compressed(
        places=_load(folder, PLACES, record),
        dictionary=tuple(held(ATOMS, name) for name in record.dictionary),
        targets=tuple(held(TARGETS, name) for name in record.targets),
        record=record,
    )


def _masked(dictionary: Dictionary, target: Vector | None, over: Over) -> list[TaskVector]:
    if target is None and over is not Over.DICTIONARY:
        raise BadInput(expected="a target to make the mask from", found="none", where=f"--mask {over}", hint="name a target, or leave --mask out")
    atoms: list[TaskVector] = [] if over is Over.TARGET else list(dictionary.atoms)
    return atoms if target is None or over is Over.DICTIONARY else [*atoms, target]


def _places(stage: Stage, vectors: list[TaskVector], entries: int, watch: Watch) -> dict[str, Tensor]:
    if not stage.has(PLACES):
        with stage.piece(PLACES) as piece:
            save_tensors(piece, mask(vectors, entries, watch))
    return load_file(stage.folder / PLACES)


def _values(vector: TaskVector, places: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {tensor: at(vector.delta(tensor), kept) for tensor, kept in places.items() if tensor in vector.shapes}


def _shape(vectors: list[TaskVector], tensor: str) -> tuple[int, ...]:
    return next(vector.shapes[tensor] for vector in vectors if tensor in vector.shapes)


def _load(folder: Path, file: str, record: CompressedRecord) -> dict[str, Tensor]:
    try:
        if sha256(folder / file) != record.files[file]:
            raise BadInput(expected=f"the file that {RECORD} speaks of", found="another one", where=folder / file, hint="run unmerge compress again")
        return load_file(folder / file)
    except (OSError, SafetensorError) as error:
        found = "no such file" if isinstance(error, FileNotFoundError) else str(error)
        raise BadInput(expected="compressed task vectors", found=found, where=folder / file, hint="run unmerge compress again") from error
