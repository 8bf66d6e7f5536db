"""What a recipe is looked for in: a target, the base and the atoms, on as many of the changed tensors as are held in memory."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from unmerge.checkpoints import Checkpoint
from unmerge.recipes.forward import depth_of, forward
from unmerge.recipes.inputs import Inputs
from unmerge.recipes.recipe import BASE, Recipe

#: weights held in memory for each model, and weights that a quick look takes
HELD, QUICK = 4_000_000, 60_000
#: weights that estimates are made from
ENOUGH = 120_000


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
        dtype: its dtype, which a merge computes in.
        tensors: names of the tensors that are looked at.
    """

    inputs: Inputs
    target: Checkpoint
    dtype: torch.dtype
    tensors: tuple[str, ...]
    _held: dict[tuple[str, str], Tensor] = field(default_factory=dict, repr=False, compare=False)
    #: what methods share of what they made out of a case, by key
    made_out: dict[Hashable, Any] = field(default_factory=dict, repr=False, compare=False)

    @staticmethod
    def of(inputs: Inputs, target: Checkpoint, changed: Sequence[str]) -> Case:
        """Hold evenly spaced ones of the tensors that change, as many as there is room for."""
        sizes = {tensor: torch.Size(inputs.base.shape(tensor)).numel() for tensor in changed}
        step = max(1, -(-sum(sizes.values()) // HELD))
        kept = tuple(changed[::step])
        dtype = target.read(kept[0] if kept else next(iter(target.shapes))).dtype
        return Case(inputs, target, dtype, kept)

    @property
    def dtype_name(self) -> str:
        """As mergekit writes it."""
        return str(self.dtype).removeprefix("torch.")

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
    def enough(self) -> tuple[str, ...]:
        """As many tensors, evenly spaced, as estimates need."""
        step = max(1, -(-sum(self.read(BASE, tensor).numel() for tensor in self.tensors) // ENOUGH))
        return self.tensors[::step]

    def read(self, model: str, tensor: str) -> Tensor:
        """A tensor of one of the models, in the dtype of the merge; kept."""
        if (model, tensor) not in self._held:
            self._held[model, tensor] = self.inputs.read(model, tensor, self.dtype)
        return self._held[model, tensor]

    def wanted(self, tensor: str) -> Tensor:
        """The target's tensor; kept."""
        if ("", tensor) not in self._held:
            self._held["", tensor] = self.target.read(tensor).to(self.dtype)
        return self._held["", tensor]

    def made(self, recipe: Recipe, tensor: str) -> Tensor:
        """What a recipe makes of one tensor, in the target's dtype."""
        names = dict.fromkeys([*(model.model for model in recipe.inputs), *([recipe.base] if recipe.base else [])])
        merged = forward(recipe, {name: self.read(name, tensor) for name in names}, tensor, depth_of(tensor, self.inputs.layers))
        return merged.to(self.dtype)

    def identical(self, recipe: Recipe, tensors: Sequence[str] | None = None, spacings: float = 0.0) -> float:
        """The share of identical weights among those that differ from the base in the target or in what the recipe makes.

        Args:
            recipe: what to run.
            tensors: those that are compared, all by default.
            spacings: weights this many spacings of the dtype apart count as identical.
        """
        same = counted = 0
        for tensor in self.tensors if tensors is None else tensors:
            base, wanted, made = self.read(BASE, tensor), self.wanted(tensor), self.made(recipe, tensor)
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


def half_spacing(values: Tensor) -> Tensor:
    """Half the distance from each value to the next larger magnitude of its dtype, in float64."""
    magnitude = values.abs()
    return (torch.nextafter(magnitude, torch.full_like(magnitude, torch.inf)).double() - magnitude.double()) / 2
