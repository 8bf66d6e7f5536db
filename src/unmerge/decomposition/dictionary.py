"""Opening what the user names: a base, a target, a dictionary of atoms."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from unmerge.checkpoints import Adapter, Checkpoint, Difference
from unmerge.checkpoints.adapter import WEIGHTS
from unmerge.checkpoints.adapter_config import CONFIG, AdapterConfig
from unmerge.checkpoints.alignment import aligned
from unmerge.checkpoints.contents import MODEL, Contents
from unmerge.checkpoints.files import TensorFiles, existing_folder
from unmerge.checkpoints.formats import named_format
from unmerge.checkpoints.hub import located, short_name
from unmerge.core.errors import BadInput, unknown_name
from unmerge.core.sources import MEMORY
from unmerge.decomposition.unmerged import is_unmerged, open_unmerged
from unmerge.vectors import Held

Vector = Adapter | Difference | Held
Place = Path | str
#: what PEFT calls an adapter that was given no name
_DEFAULT = "default"
#: what the names of an adapter's factors begin with, by its type
_PARTS = {"LORA": ".lora_", "LOHA": ".hada_", "LOKR": ".lokr_"}


@dataclass(frozen=True)
class Dictionary:
    """The known task vectors.

    Attributes:
        atoms: adapters, checkpoints minus the base, or changes in memory, by unique name.
        ignored: what was not read in the folders, a sentence each.
    """

    atoms: tuple[Vector, ...]
    ignored: tuple[str, ...] = ()

    @staticmethod
    def open(folders: Place | Sequence[Place], base: Checkpoint | None = None) -> Dictionary:
        """Open every adapter and checkpoint in some folders.

        Args:
            folders: one or several, or names on the hub. Each holds atoms in folders of their own, or is an atom.
            base: the base model. Atoms that are checkpoints need it, and adapters that depend on its weights.

        Raises:
            BadInput: an atom cannot be read, two have one name, or there is none.
        """
        listed = [folders] if isinstance(folders, str | Path) else folders
        return open_dictionary([Path(folder) for folder in listed], base)

    @staticmethod
    def of(vectors: Iterable[Vector]) -> Dictionary:
        """Make a dictionary of task vectors that are open already, or are in memory.

        Args:
            vectors: with different names.

        Raises:
            BadInput: there is none, or two have one name.
        """
        atoms: dict[str, Vector] = {}
        for vector in vectors:
            if vector.name in atoms:
                raise _twice(vector.name, folder_of(vector), "name one of the two otherwise")
            atoms[vector.name] = vector
        if not atoms:
            raise BadInput(expected="task vectors", found="none", where="the dictionary", hint="give at least one")
        return Dictionary(tuple(atoms.values()))

    @property
    def names(self) -> tuple[str, ...]:
        """Of its atoms, in order."""
        return tuple(atom.name for atom in self.atoms)

    def named(self, name: str) -> Vector:
        """The atom of that name."""
        for atom in self.atoms:
            if atom.name == name:
                return atom
        raise unknown_name(name, self.names, "the dictionary", otherwise="give the name of an atom's folder")

    def without(self, names: Collection[str]) -> Dictionary:
        """The same without some atoms."""
        return replace(self, atoms=tuple(atom for atom in self.atoms if atom.name not in names))

    def only(self, modules: str | None) -> Dictionary:
        """The same, of some modules; see ``only``."""
        return Dictionary(tuple(only(atom, modules) for atom in self.atoms), self.ignored)


def only(vector: Vector, modules: str | None) -> Vector:
    """A task vector of some modules alone: those whose tensors' names a regular expression is found in.

    Raises:
        BadInput: no regular expression, or one that no tensor matches.
    """
    if modules is None:
        return vector
    try:
        pattern = re.compile(modules)
    except re.error as error:
        raise BadInput(expected="a regular expression", found=f"{modules} ({error})", where="--modules", hint="see Python's re") from error
    if not any(pattern.search(tensor) for tensor in vector.shapes):
        parts = dict.fromkeys(part for tensor in vector.shapes for part in tensor.split("."))
        raise unknown_name(
            modules,
            parts,
            "--modules",
            expected=f"a part of the names of tensors ({next(iter(vector.shapes))}, ...)",
            otherwise=f"choose among the modules of {vector.name}",
        )
    if isinstance(vector, Held):
        return vector.of_modules(pattern)
    rows = tuple(skip for skip in vector.left_rows if pattern.search(skip.tensor))
    if isinstance(vector, Difference):
        return replace(vector, modules=modules, left_rows=rows)
    changes = {tensor: change for tensor, change in vector.changes.items() if pattern.search(tensor)}
    skipped = tuple(skip for skip in vector.skipped if pattern.search(skip.tensor))
    return replace(vector, changes=changes, skipped=skipped, modules=modules, left_rows=rows)


def open_base(folder: Path) -> Checkpoint:
    """Open the base model's checkpoint: a folder, or a name on the hub."""
    return Checkpoint.open(_inside(folder))


def open_vector(folder: Path, base: Checkpoint | None) -> Vector:
    """Open a target, an adapter or a checkpoint as its difference to the base: a folder, or a name on the hub.

    Where a folder holds both, the checkpoint is read, unless it is the base itself: then what lies beside it acts.

    Raises:
        BadInput: neither, a checkpoint without a base, one whose shapes are not the base's, or an adapter without its configuration.
    """
    contents = Contents.of(_inside(folder))
    if contents.is_both:
        return _acting(contents, base)
    if contents.adapter and not contents.adapter_config and not contents.model:
        raise BadInput(
            expected=f"{CONFIG} beside {WEIGHTS}.safetensors, since it says at which scale the adapter acts",
            found="none",
            where=contents.folder,
            hint="put it there",
        )
    return _opened(contents, base)


def folder_of(vector: Vector) -> Path:
    """Where an adapter, or the tuned side of a difference, lies; MEMORY for what has no folder."""
    if isinstance(vector, Held):
        return MEMORY
    return vector.tuned.folder if isinstance(vector, Difference) else vector.folder


def open_dictionary(folders: Sequence[Path], base: Checkpoint | None) -> Dictionary:
    """Open every adapter and checkpoint in some folders or repositories of the hub; each may also be an atom itself.

    Adapters in the folders of an atom, or of a folder that is none, are atoms as well: PEFT writes several adapters of a model so.

    Raises:
        BadInput: an atom cannot be read, two have one name, or there is none.
    """
    atoms: dict[str, Vector] = {}
    ignored: list[str] = []
    for folder in folders:
        place = _inside(folder)
        contents = Contents.of(place)
        entries = [place] if contents.is_vector else sorted(path for path in place.iterdir() if path.is_dir() and not path.name.startswith("."))
        if not contents.is_vector and (stray := named_format(sorted(place.iterdir()), "adapters, each in its own folder")):
            raise stray
        for entry in entries:
            found = Contents.of(entry)
            below, states = found.below()
            ignored += [f"{state} is a state of a training that went on, and was not read" for state in states]
            if not (found.is_vector or below or states):
                ignored.append(f"{entry} is neither an adapter nor a checkpoint and was ignored")
            for path in [entry, *below] if found.is_vector else below:
                atom = _atom(Contents.of(path), base)
                if path.name == _DEFAULT and path != entry:
                    atom = replace(atom, name=entry.name)
                if atom.name in atoms:
                    raise _twice(atom.name, path, "rename one of the two folders")
                atoms[atom.name] = atom
    if not atoms:
        where = ", ".join(map(str, folders))
        raise BadInput(expected="adapters, each in its own folder", found="none", where=where, hint="give the folder that holds them")
    return Dictionary(tuple(atoms.values()), tuple(ignored))


def _twice(name: str, where: Path, hint: str) -> BadInput:
    return BadInput(expected="a different name for every atom", found=f"a second {name}", where=where, hint=hint)


def refuse_memory(what: str, base: Checkpoint | None, vectors: Iterable[Vector]) -> None:
    """Raise BadInput where something is in memory that ``what`` reads from files.

    Args:
        what: is to be done.
        base: the base model, where there is one.
        vectors: the target and the atoms.
    """
    held = [vector.name for vector in vectors if folder_of(vector) == MEMORY] + (["the base"] if base is not None and base.is_in_memory else [])
    if held:
        raise BadInput(
            expected=f"models and adapters on disk, for {what}",
            found=f"{held[0]} in memory",
            where=what,
            hint="save it (save_pretrained) and name its folder",
        )


def notes_of(base: Checkpoint | None, vectors: Iterable[Vector], dictionary: Dictionary) -> list[str]:
    """Warnings of how the inputs were read, and of what was not."""
    held = [vector.notes for vector in vectors]
    return [*(base.notes if base else ()), *(note for notes in held for note in notes), *dictionary.ignored]


def _inside(folder: Path) -> Path:
    """The folder that a user names; a file in its place is named where its format is known."""
    place = located(folder)
    if place.is_file() and (named := named_format([place], "a folder")):
        raise named
    return existing_folder(place)


def _opened(contents: Contents, base: Checkpoint | None) -> Vector:
    """What lies in a folder of one kind of weights."""
    folder = contents.folder
    if contents.is_leftover and base is not None and is_unmerged(folder):
        return open_unmerged(folder, base)
    if contents.is_leftover or (contents.adapter and not contents.adapter_config and contents.model):
        left = CONFIG if contents.adapter_config else f"{WEIGHTS}.safetensors"
        return _noted(_difference(folder, base), f"holds a checkpoint and {left} alone, a part of an adapter: the checkpoint was read")
    if contents.adapter_config:
        return Adapter.open(folder, base)
    if not contents.model_config:
        raise contents.nothing()
    return _difference(folder, base)


def subtracted(name: str, tuned: Checkpoint, base: Checkpoint) -> Difference:
    """A checkpoint minus its base: by the base's names, in the base's coordinates."""
    difference = Difference.between(name, tuned, base)
    return replace(difference, tuned=aligned(difference.tuned, difference.base), notes=tuned.notes)


def _atom(contents: Contents, base: Checkpoint | None) -> Vector:
    """An atom: of a checkpoint and an adapter in one folder it is the adapter."""
    if contents.is_both:
        return _noted(Adapter.open(contents.folder, base), "holds a checkpoint and an adapter: as an atom of the dictionary the adapter was read")
    if contents.adapter and not contents.adapter_config and not contents.model:
        return _unstated(contents.folder, base)
    return _opened(contents, base)


def _unstated(folder: Path, base: Checkpoint | None) -> Vector:
    """An adapter that lies there without its configuration: its ranks are the file's, its scale is taken as 1."""
    names = TensorFiles.find(folder, WEIGHTS).place
    kinds = [kind for kind, part in _PARTS.items() if any(part in name for name in names)]
    if len(kinds) != 1 or any("lora_magnitude_vector" in name for name in names):
        raise BadInput(
            expected=f"{CONFIG} beside {WEIGHTS}.safetensors",
            found="none, and weights that do not say what it would",
            where=folder,
            hint="put it there",
        )
    adapter = Adapter.open(folder, base, AdapterConfig.unstated(kinds[0]))
    return _noted(adapter, f"has no {CONFIG} and was read at scale 1: a coefficient of it is the one that acted times alpha / r")


def _acting(contents: Contents, base: Checkpoint | None) -> Vector:
    """What acts where a target's folder holds a checkpoint and an adapter: the checkpoint, unless it is the base itself."""
    if base is None:
        raise BadInput(
            expected="one kind of weights, or a base to tell which of them acts",
            found=f"a checkpoint ({MODEL}.safetensors) and an adapter ({WEIGHTS}.safetensors)",
            where=contents.folder,
            hint="give the base with --base",
        )
    difference = _difference(contents.folder, base)
    if any(bool(torch.any(difference.delta(tensor).dense())) for tensor in difference.shapes):
        return _noted(difference, "holds a checkpoint and an adapter: the checkpoint was read, the adapter was not")
    return _noted(Adapter.open(contents.folder, base), "holds an adapter and a copy of the base: the adapter was read")


def _difference(folder: Path, base: Checkpoint | None) -> Difference:
    if base is None:
        raise BadInput(expected="a base to subtract from a checkpoint", found="none", where=folder, hint="give the base with --base")
    return subtracted(short_name(folder), Checkpoint.open(folder), base)


def _noted(vector: Vector, note: str) -> Vector:
    return replace(vector, notes=(*vector.notes, f"{vector.name} {note}"))
