"""Layers of several models stacked (passthrough with slices, a frankenmerge): which layer of a target is which model's.

The number of layers may differ from the base's, so that a difference to the base says nothing: layers are compared as a whole,
tensor by tensor, for equality. What gives it away: every layer is one of the base's or of an atom's, its tensors as they are or each
times a number (``scale``, which people set to 0 for what a repeated layer adds, or to the root of a half for its queries and keys).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from unmerge.checkpoints import Adapter, Checkpoint, Difference
from unmerge.checkpoints.vocabulary import is_embedding
from unmerge.recipes.case import half_spacing
from unmerge.recipes.decimals import shortest
from unmerge.recipes.forward import layer_of
from unmerge.recipes.inputs import Inputs
from unmerge.recipes.recipe import BASE, Input, Recipe, Slice

#: a look before an adapter is merged at all: spacings that the merge may be off from its product, and the share of weights within them
_NEAR, _LIKELY = 2.0, 0.9
#: entries that tell by what a tensor may have been multiplied
_TOLD = 1 << 20


class Layer(NamedTuple):
    """A model's name, the number of one of its layers, and what modules of it are multiplied by, where that is not 1."""

    model: str
    number: int
    scales: tuple[tuple[str, float], ...] = ()

    @property
    def parameters(self) -> dict[str, Any]:
        """As mergekit's passthrough takes them."""
        if not self.scales:
            return {}
        return {"scale": [*({"filter": module, "value": scale} for module, scale in self.scales), {"value": 1.0}]}


@dataclass(frozen=True)
class Stack:
    """A target whose layers are all known.

    Attributes:
        recipe: which layers to stack; a plain passthrough where they are all of one model, in order.
        equal: by layer of the target, every layer that it equals, where there are several.
    """

    recipe: Recipe
    equal: dict[int, tuple[Layer, ...]]


def stacked(target: Checkpoint, inputs: Inputs) -> Stack | None:
    """The layers that a target is stacked of; None as soon as one is no model's."""
    return _Layers(target, inputs).stack()


@dataclass(frozen=True)
class _Layers:
    target: Checkpoint
    inputs: Inputs

    @cached_property
    def names(self) -> dict[int | None, list[str]]:
        """The target's tensors by layer, the smallest first; None: outside of the layers."""
        found: dict[int | None, list[str]] = {}
        for tensor in sorted(self.target.shapes, key=lambda name: math.prod(self.target.shapes[name])):
            found.setdefault(layer_of(tensor), []).append(tensor)
        return found

    @cached_property
    def dtype(self) -> torch.dtype:
        return self.target.dtype(next(tensor for tensor in self.target.shapes if self.target.is_weight(tensor)))

    def stack(self) -> Stack | None:
        count = 1 + max((layer for layer in self.names if layer is not None), default=-1)
        equal: list[tuple[Layer, ...]] = []
        for layer in range(count):
            found = self._equal(layer)
            if not found:
                return None
            equal.append(found)
        slices = self._slices(equal) if equal else None
        if not slices:
            return None
        dtype = str(self.dtype).removeprefix("torch.")
        first = slices[0]
        whole = len(slices) == 1 and (first.first, first.end, first.parameters) == (0, self._depth(first.model), {})
        recipe = Recipe("passthrough", (Input(first.model),), dtype=dtype) if whole else Recipe("passthrough", (), dtype=dtype, slices=slices)
        return Stack(recipe, {layer: found for layer, found in enumerate(equal) if len(found) > 1})

    def _slices(self, equal: Sequence[tuple[Layer, ...]]) -> tuple[Slice, ...]:
        """The fewest slices; the first one's model gives the embedding, the last one's what follows the layers."""
        equal = list(equal)
        equal[0] = tuple(layer for layer in equal[0] if self._has_outside(layer.model, before=True))
        equal[-1] = tuple(layer for layer in equal[-1] if self._has_outside(layer.model, before=False))
        slices: list[Slice] = []
        start = 0
        while start < len(equal):
            runs = [(layer, _run(equal, start, layer)) for layer in equal[start]]
            if not runs:
                return ()
            used = {part.model for part in slices}
            layer, length = max(runs, key=lambda run: (-len(run[0].scales), run[1], run[0].model in used))
            slices.append(Slice(layer.model, layer.number, layer.number + length, layer.parameters))
            start += length
        return tuple(slices)

    def _equal(self, layer: int) -> tuple[Layer, ...]:
        """All models' layers that one of the target's equals; those that it is a multiple of, where it equals none."""
        models = [BASE, *self.inputs.dictionary.names]
        found = [one for model in models for other in range(self._depth(model)) if (one := self._multiple(layer, model, other)) is not None]
        fewest = min((len(one.scales) for one in found), default=0)
        return tuple(one for one in found if len(one.scales) == fewest)

    def _multiple(self, layer: int, model: str, other: int) -> Layer | None:
        """A model's layer, if the target's is a multiple of it, module by module."""
        pairs = [(tensor, tensor.replace(f".{layer}.", f".{other}.", 1)) for tensor in self.names[layer]]
        if not self._likely(model, pairs):
            return None
        scales: dict[str, float] = {}
        for tensor, source in pairs:
            if not self._has(model, source, tensor):
                return None
            own = self.inputs.read(model, source, self.dtype)
            if not bool(own.any()) and not bool(self._wanted(tensor).any()):
                continue  # zeros are any multiple of zeros
            scale = scale_of(own, self._wanted(tensor))
            if scale is None or scales.setdefault(_module(tensor), scale) != scale:
                return None
        return Layer(model, other, tuple((module, scale) for module, scale in scales.items() if scale != 1))

    def _likely(self, model: str, pairs: Sequence[tuple[str, str]]) -> bool:
        """Whether an adapter may be what a layer differs from the base by: a look before it is merged into the base."""
        atom = None if model == BASE else self.inputs.dictionary.named(model)
        if not isinstance(atom, Adapter):
            return True
        for tensor, source in sorted(pairs, key=lambda pair: pair[1] in atom.shapes):  # what it leaves as it is tells the layer
            if not self.inputs.base.holds(source) or self.inputs.base.shape(source) != self.target.shape(tensor):
                return False
            wanted, expected = self._wanted(tensor), self.inputs.base.read(source).double()
            if source in atom.shapes:
                expected = expected + atom.delta(source).dense().double()
                scale = float((wanted.double() * expected).sum() / expected.square().sum())
                if scale == 0:
                    continue
                stored = self.inputs.base.dtype(source)
                slack = _NEAR * 2 * torch.maximum(abs(scale) * half_spacing(expected.to(stored)), half_spacing(wanted))
                return float(((wanted.double() - scale * expected).abs() <= slack).double().mean()) >= _LIKELY
            if scale_of(expected.to(self.dtype), wanted) is None:
                return False
        return True

    def _has_outside(self, model: str, before: bool) -> bool:
        """Whether a model's embedding, or its tensors after the layers, are the target's."""
        return all(self._same(model, tensor, tensor) for tensor in self.names.get(None, []) if is_embedding(tensor) is before)

    def _same(self, model: str, tensor: str, source: str) -> bool:
        return self._has(model, source, tensor) and torch.equal(self.inputs.read(model, source, self.dtype), self._wanted(tensor))

    def _has(self, model: str, source: str, tensor: str) -> bool:
        """Whether a model has a tensor of the shape that one of the target's has."""
        atom = None if model == BASE else self.inputs.dictionary.named(model)
        known = atom.tuned if isinstance(atom, Difference) else self.inputs.base
        return known.holds(source) and known.shape(source) == self.target.shape(tensor)

    def _wanted(self, tensor: str) -> Tensor:
        return self.target.read(tensor).to(self.dtype)

    def _depth(self, model: str) -> int:
        """How many layers a model has; an adapter's are the base's."""
        atom = None if model == BASE else self.inputs.dictionary.named(model)
        if not isinstance(atom, Difference):
            return self.inputs.layers
        return 1 + max((layer_of(tensor) or 0 for tensor in atom.tuned.shapes), default=-1)


def _run(equal: Sequence[tuple[Layer, ...]], start: int, layer: Layer) -> int:
    """How many layers of a model follow each other from one of the target's on, multiplied alike."""
    length = 0
    while start + length < len(equal) and layer._replace(number=layer.number + length) in equal[start + length]:
        length += 1
    return length


def _module(tensor: str) -> str:
    """``q_proj`` of ``model.layers.0.self_attn.q_proj.weight``: what a filter of mergekit's is to name."""
    return tensor.split(".")[-2]


def scale_of(own: Tensor, wanted: Tensor) -> float | None:
    """The shortest decimal that a tensor times it is another one, to the last bit; None where there is none. Some entries say which it may be."""
    if torch.equal(own, wanted):
        return 1.0
    if not bool(wanted.any()):
        return 0.0
    before, after = own.flatten()[:_TOLD], wanted.flatten()[:_TOLD]
    there = before != 0
    if bool((after[~there] != 0).any()) or not bool(there.any()):
        return None
    ratio = after[there].double() / before[there].double()
    width = half_spacing(after[there]) / before[there].double().abs()
    low, high = float((ratio - width).max()), float((ratio + width).min())
    if low > high:
        return None
    for scale in (shortest(low, high), (low + high) / 2):
        if torch.equal(own * scale, wanted):
            return scale
    return None
