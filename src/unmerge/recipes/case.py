"""What a recipe is looked for in: a target, the base and the atoms, on as many of the changed tensors as are held in memory.

Three dtypes meet. A merge computes in one (mergekit's ``dtype``), its values lie on the grid of one (``out_dtype``), and the file that
holds them may be wider than that: a bfloat16 merge that was stored again in float32 still has bfloat16's values.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from unmerge.checkpoints import Checkpoint
from unmerge.recipes.forward import depth_of, forward
from unmerge.recipes.inputs import Inputs
from unmerge.recipes.recipe import BASE, Recipe

#: weights held in memory for each model, and weights that a quick look takes
HELD, QUICK = 4_000_000, 60_000
#: weights that estimates are made from, and values of a tensor that tell its grid
ENOUGH, _TOLD = 120_000, 20_000


@dataclass(frozen=True)
class Flat:
    """Changes of some atoms and of the target, all tensors one after the other, in float64.

    Attributes:
        atoms: (n, N), as mergekit takes them: a difference in its dtype.
        target: (N,).
        base: (N,) the base's weights.
        half: (N,) half the distance between the target's value and the next one that its dtype has.
        parts: where each tensor lies.
    """

    atoms: Tensor
    target: Tensor
    base: Tensor
    half: Tensor
    parts: dict[str, slice]

    def some(self, places: Tensor) -> Flat:
        """The chosen weights only; tensors are no longer told apart."""
        return Flat(self.atoms[:, places], self.target[places], self.base[places], self.half[places], {})


@dataclass(frozen=True)
class Case:
    """A target beside the models that may have gone into it.

    Attributes:
        inputs: the base and the dictionary.
        target: the checkpoint to explain.
        dtype: the coarsest one that holds the target's values.
        computed: the one that the merge computed in.
        tensors: names of the tensors that are looked at.
        rows: of which tensors some rows only are looked at, and which; statistics of a whole tensor are not known of these.
    """

    inputs: Inputs
    target: Checkpoint
    dtype: torch.dtype
    computed: torch.dtype
    tensors: tuple[str, ...]
    rows: Mapping[str, slice] = field(default_factory=dict)
    _held: dict[tuple[str, str], Tensor] = field(default_factory=dict, repr=False, compare=False)
    #: what methods share of what they made out of a case, by key
    made_out: dict[Hashable, Any] = field(default_factory=dict, repr=False, compare=False)

    @staticmethod
    def of(inputs: Inputs, target: Checkpoint, changed: Sequence[str]) -> Case:
        """Hold the tensors that change, where there is room for all; else evenly spaced ones of those that are not too large.

        Where all are too large, some rows of each.
        """
        sizes = {tensor: math.prod(inputs.base.shape(tensor)) for tensor in changed}
        kept = [tensor for tensor in changed if sizes[tensor] <= HELD // 2] if sum(sizes.values()) > HELD else list(changed)
        rows = {} if kept else _strips(inputs.base, changed)
        kept = kept[:: max(1, -(-sum(sizes[tensor] for tensor in kept) // HELD))] if kept else list(changed)
        dtype = grid_of(target, kept, rows)
        return Case(inputs, target, dtype, dtype, tuple(kept), rows)

    def everywhere(self, changed: Sequence[str]) -> Case:
        """The same on all tensors that change, some rows of each: for methods that treat every weight by itself."""
        if set(changed) <= set(self.tensors):
            return self
        return replace(self, tensors=tuple(changed), rows=_strips(self.inputs.base, changed), _held={}, made_out={})

    @property
    def wider(self) -> Case | None:
        """The same for a merge that computed in float32 and was rounded once, to the target's 16 bits; None where it is that wide."""
        return None if self.computed.itemsize > 2 else replace(self, computed=torch.float32, _held={}, made_out={})

    @cached_property
    def stored(self) -> torch.dtype:
        """The dtype of the target's file."""
        return self.target.dtype(self.tensors[0])

    @property
    def dtype_name(self) -> str:
        """The one that the merge computes in, as mergekit writes it."""
        return str(self.computed).removeprefix("torch.")

    def written(self, recipe: Recipe) -> Recipe:
        """The recipe with the dtype that it writes, where that is not the one that it computes in."""
        file = self.stored if self.computed == self.dtype else self.dtype
        if file == self.computed or recipe.dtype != self.dtype_name:
            return recipe
        return replace(recipe, out_dtype=str(file).removeprefix("torch."))

    def release(self) -> None:
        """Let go of what is held; it is read again where it is asked for."""
        self._held.clear()
        self.made_out.clear()

    @property
    def quick(self) -> tuple[str, ...]:
        """A few small tensors, one of a kind, for a first look."""
        chosen: dict[str, str] = {}
        for tensor in sorted(self.tensors, key=lambda name: (self.read(BASE, name).numel(), name)):
            chosen.setdefault(tensor.rpartition(".layers.")[2].partition(".")[2] or tensor, tensor)
        names: list[str] = []
        size = 0
        for tensor in chosen.values():
            if names and size + self.read(BASE, tensor).numel() > QUICK:
                break
            names.append(tensor)
            size += self.read(BASE, tensor).numel()
        return tuple(names)

    @property
    def smallest(self) -> tuple[str, ...]:
        """The smallest tensor of the quick look that the target changes."""
        changed = (tensor for tensor in self.quick if not torch.equal(self.wanted(tensor), self.before(tensor)))
        return tuple(itertools.islice(changed, 1)) or self.quick[:1]

    @property
    def enough(self) -> tuple[str, ...]:
        """As many tensors, evenly spaced, as estimates need."""
        step = max(1, -(-sum(self.read(BASE, tensor).numel() for tensor in self.tensors) // ENOUGH))
        return self.tensors[::step]

    def read(self, model: str, tensor: str) -> Tensor:
        """A tensor of one of the models, in the dtype of the merge; kept."""
        if (model, tensor) not in self._held:
            self._held[model, tensor] = self.inputs.read(model, tensor, self.computed, self.rows.get(tensor))
        return self._held[model, tensor]

    def wanted(self, tensor: str) -> Tensor:
        """The target's tensor; kept."""
        if ("", tensor) not in self._held:
            self._held["", tensor] = rows_of(self.target, tensor, self.rows.get(tensor)).to(self.dtype)
        return self._held["", tensor]

    def before(self, tensor: str) -> Tensor:
        """The base's tensor as the target would have it if nothing had changed it."""
        return self.read(BASE, tensor).to(self.dtype)

    def made(self, recipe: Recipe, tensor: str) -> Tensor:
        """What a recipe makes of one tensor, as the target's file would have it."""
        names = dict.fromkeys([*(model.model for model in recipe.inputs), *([recipe.base] if recipe.base else [])])
        merged = forward(recipe, {name: self.read(name, tensor) for name in names}, tensor, depth_of(tensor, self.inputs.layers))
        return merged.to(self.stored).to(self.dtype)

    def identical(self, recipe: Recipe, tensors: Sequence[str] | None = None, spacings: float = 0.0) -> float:
        """The share of identical weights among those that differ from the base in the target or in what the recipe makes.

        Args:
            recipe: what to run.
            tensors: those that are compared, all by default.
            spacings: weights this many spacings of the dtype apart count as identical.
        """
        same = counted = 0
        for tensor in self.tensors if tensors is None else tensors:
            base, wanted = self.before(tensor), self.wanted(tensor)
            try:
                made = self.made(recipe, tensor)
            except ValueError:  # mergekit refuses to run it on this tensor: multislerp, where no direction is left
                return 0.0
            differs = (wanted != base) | (made != base)
            equal = wanted == made
            if spacings:
                equal |= (wanted.double() - made.double()).abs() <= 2 * spacings * half_spacing(wanted)
            counted += int(differs.sum())
            same += int((differs & equal).sum())
        return same / counted if counted else 0.0

    def flat(self, atoms: Sequence[str], tensors: Sequence[str] | None = None, origin: str = BASE) -> Flat:
        """Changes of some atoms and of the target from a model, side by side."""
        names = self.tensors if tensors is None else tensors
        rows: list[list[Tensor]] = [[] for _ in atoms]
        target, base, half, parts, start = [], [], [], {}, 0
        for tensor in names:
            before, after = self.read(origin, tensor), self.wanted(tensor)
            for row, atom in zip(rows, atoms, strict=True):
                row.append((self.read(atom, tensor) - before).double().reshape(-1))
            target.append((after.double() - before.double()).reshape(-1))
            base.append(before.double().reshape(-1))
            half.append(half_spacing(after).reshape(-1))
            parts[tensor] = slice(start, start + before.numel())
            start += before.numel()
        stacked = torch.stack([torch.cat(row) for row in rows]) if rows else torch.zeros(0, start, dtype=torch.float64)
        return Flat(stacked, torch.cat(target), torch.cat(base), torch.cat(half), parts)


def rows_of(model: Checkpoint, tensor: str, rows: slice | None) -> Tensor:
    """Some rows of a tensor, all where none are named."""
    return model.read(tensor) if rows is None else model.rows(tensor)[rows]


def grid_of(target: Checkpoint, tensors: Sequence[str], rows: Mapping[str, slice]) -> torch.dtype:
    """The coarsest dtype that holds the values of some tensors, as far as the first ones of each tell."""
    stored = target.dtype(tensors[0] if tensors else next(name for name in target.shapes if target.is_weight(name)))
    for coarser in (torch.bfloat16, torch.float16, torch.float32):
        if coarser.itemsize < stored.itemsize or (coarser, stored) == (torch.bfloat16, torch.float16):
            seen = (rows_of(target, tensor, rows.get(tensor)).flatten()[:_TOLD] for tensor in tensors)
            if tensors and all(torch.equal(values.to(coarser).to(stored), values) for values in seen):
                return coarser
    return stored


def _strips(base: Checkpoint, tensors: Sequence[str]) -> dict[str, slice]:
    """Evenly spaced rows of the matrices that have many, as many as there is room for."""
    room = max(1, min(HELD // max(1, len(tensors)), ENOUGH))
    strips = {}
    for tensor in tensors:
        shape = base.shape(tensor)
        kept = max(1, room // math.prod(shape[1:])) if len(shape) > 1 else math.inf
        if kept < shape[0]:
            strips[tensor] = slice(0, None, -(-shape[0] // int(kept)))
    return strips


def half_spacing(values: Tensor) -> Tensor:
    """Half the distance from each value to the next larger magnitude of its dtype, in float64."""
    magnitude = values.abs()
    return (torch.nextafter(magnitude, torch.full_like(magnitude, torch.inf)).double() - magnitude.double()) / 2
