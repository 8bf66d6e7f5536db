"""Opening what the user names: a base, a target, a dictionary of atoms."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from unmerge.checkpoints import Adapter, Checkpoint, Difference
from unmerge.checkpoints.adapter_config import CONFIG
from unmerge.checkpoints.files import existing_folder
from unmerge.checkpoints.hub import located, short_name
from unmerge.core.errors import BadInput, unknown_name

Vector = Adapter | Difference


@dataclass(frozen=True)
class Dictionary:
    """The known task vectors.

    Attributes:
        atoms: adapters, or checkpoints minus the base, by unique name.
        ignored: entries of the folders that are neither.
    """

    atoms: tuple[Vector, ...]
    ignored: tuple[str, ...]

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
    if isinstance(vector, Difference):
        return replace(vector, modules=modules)
    skipped = tuple(skip for skip in vector.skipped if pattern.search(skip.tensor))
    return replace(
        vector, changes={tensor: change for tensor, change in vector.changes.items() if pattern.search(tensor)}, skipped=skipped, modules=modules
    )


def open_base(folder: Path) -> Checkpoint:
    """Open the base model's checkpoint: a folder, or a name on the hub."""
    return Checkpoint.open(located(folder))


def open_vector(folder: Path, base: Checkpoint | None) -> Vector:
    """Open an adapter, or a checkpoint as its difference to the base: a folder, or a name on the hub.

    Raises:
        BadInput: neither, a checkpoint without a base, or one whose shapes are not the base's.
    """
    folder = existing_folder(located(folder))
    if (folder / CONFIG).exists():
        return Adapter.open(folder, base)
    if not (folder / "config.json").exists():
        raise BadInput(expected=f"an adapter ({CONFIG}) or a checkpoint (config.json)", found="neither", where=folder, hint="check the path")
    if base is None:
        raise BadInput(expected="a base to subtract from a checkpoint", found="none", where=folder, hint="give the base with --base")
    difference = Difference(short_name(folder), Checkpoint.open(folder), base)
    _ = difference.shapes  # another base is refused now, not in the middle of the work
    return difference


def folder_of(vector: Vector) -> Path:
    """Where an adapter, or the tuned side of a difference, lies."""
    return vector.tuned.folder if isinstance(vector, Difference) else vector.folder


def open_dictionary(folders: Sequence[Path], base: Checkpoint | None) -> Dictionary:
    """Open every adapter and checkpoint in some folders or repositories of the hub; each may also be an atom itself.

    Raises:
        BadInput: an atom cannot be read, two have one name, or there is none.
    """
    atoms: dict[str, Vector] = {}
    ignored: list[str] = []
    for folder in folders:
        for entry in _entries(existing_folder(located(folder))):
            if not _is_atom(entry):
                ignored.append(str(entry))
                continue
            atom = open_vector(entry, base)
            if atom.name in atoms:
                raise BadInput(
                    expected="a different name for every atom", found=f"a second {atom.name}", where=entry, hint="rename one of the two folders"
                )
            atoms[atom.name] = atom
    if not atoms:
        where = ", ".join(map(str, folders))
        raise BadInput(expected="adapters, each in its own folder", found="none", where=where, hint="give the folder that holds them")
    return Dictionary(tuple(atoms.values()), tuple(ignored))


def _entries(folder: Path) -> list[Path]:
    if _is_atom(folder):
        return [folder]
    return sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _is_atom(folder: Path) -> bool:
    return (folder / CONFIG).exists() or (folder / "config.json").exists()
