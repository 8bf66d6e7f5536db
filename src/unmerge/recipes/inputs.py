"""The models of a merge as mergekit sees them: an adapter is first merged into the base, in the base's dtype.

mergekit leaves that merge to PEFT, and so is it done here, from a cold cache of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from unmerge.checkpoints import Adapter, Checkpoint, Difference
from unmerge.core.quiet import silent_transformers
from unmerge.decomposition import Dictionary
from unmerge.decomposition.dictionary import folder_of
from unmerge.recipes.factors import read_pair
from unmerge.recipes.forward import layer_of
from unmerge.recipes.merge import linked
from unmerge.recipes.mergekit_adapter import mergekit_module
from unmerge.recipes.recipe import BASE
from unmerge.vectors import Held


@dataclass(frozen=True)
class Inputs:
    """The base and the dictionary's atoms, as whole models.

    Attributes:
        base: the base model.
        dictionary: the atoms.
        scratch: a folder for adapters merged into the base.
    """

    base: Checkpoint
    dictionary: Dictionary
    scratch: Path
    _opened: dict[str, Checkpoint] = field(default_factory=dict, repr=False, compare=False)

    @property
    def place(self) -> Mapping[str, str]:
        """What mergekit calls each model: ``base+adapter`` for an adapter."""
        base = str(self.base.folder.resolve())
        folders = {atom.name: folder_of(atom) for atom in self.dictionary.atoms}
        adapters = {atom.name for atom in self.dictionary.atoms if isinstance(atom, Adapter)}
        return {BASE: base} | {name: f"{base}+{folder.resolve()}" if name in adapters else str(folder.resolve()) for name, folder in folders.items()}

    @cached_property
    def layers(self) -> int:
        """How many layers the base has."""
        return 1 + max((layer_of(tensor) or 0 for tensor in self.base.shapes), default=0)

    def model(self, name: str) -> Checkpoint:
        """One of the models, whole; an adapter is merged into the base the first time."""
        if name == BASE:
            return self.base
        if name not in self._opened:
            atom = self.dictionary.named(name)
            assert not isinstance(atom, Held)  # refused before
            self._opened[name] = atom.tuned if isinstance(atom, Difference) else self._merged(atom)
        return self._opened[name]

    def read(self, name: str, tensor: str, dtype: torch.dtype, rows: slice | None = None) -> Tensor:
        """A tensor of one of the models, or some rows of it, as a merge in a dtype begins with it."""
        atom = None if name == BASE or name in self._opened else self.dictionary.named(name)
        if isinstance(atom, Adapter) and atom.is_plain and atom.start is None:
            return self._added(atom, tensor, rows).to(dtype)
        model = self.model(name)
        return (model.read(tensor) if rows is None else model.rows(tensor)[rows]).to(dtype)

    def _added(self, adapter: Adapter, tensor: str, rows: slice | None) -> Tensor:
        """What PEFT makes of one tensor: the product in float32, times the scale, added and rounded once to the base's dtype."""
        before = self.base.read(tensor) if rows is None else self.base.rows(tensor)[rows]
        if tensor not in adapter.changes:
            return before
        pair = read_pair(adapter, tensor)
        b = pair.b if rows is None else pair.b[rows]
        return before.add_(b.float() @ pair.a.float() * pair.scale)

    def _merged(self, adapter: Adapter) -> Checkpoint:
        common = mergekit_module("mergekit.common")
        base, lora = (linked(folder, self.scratch) for folder in (self.base.folder, adapter.folder))
        with silent_transformers():
            reference = common.ModelReference.parse(f"{base}+{lora}").merged(cache_dir=str(self.scratch / "merged"))
        return Checkpoint.open(Path(reference.model.path)).like(self.base)
