"""A merge as data: the method, its inputs in order, and every parameter that is not mergekit's default."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

#: the base model among the inputs; no folder can have this name
BASE = "/"

#: a number, one for each of several evenly spaced layers, or a list of {"filter": part of a tensor's name, "value": ...}
Setting = Any


@dataclass(frozen=True)
class Input:
    """One model that goes into a merge.

    Attributes:
        model: an atom's name, or ``BASE``.
        parameters: its own settings.
    """

    model: str
    parameters: Mapping[str, Setting] = field(default_factory=dict)


@dataclass(frozen=True)
class Slice:
    """Some layers of one model in the place where they come in a stack.

    Attributes:
        model: an atom's name, or ``BASE``.
        first: the first layer.
        end: the layer after the last one.
        parameters: settings of these layers.
    """

    model: str
    first: int
    end: int
    parameters: Mapping[str, Setting] = field(default_factory=dict)


@dataclass(frozen=True)
class Recipe:
    """A mergekit configuration, models by name.

    Attributes:
        method: as mergekit names it.
        inputs: the models, in order; sums in floating point depend on it. None where layers are stacked.
        base: the model that changes are taken from, or None.
        parameters: settings for all models.
        dtype: that mergekit computes in.
        out_dtype: that it writes, where that is another one.
        slices: layers that are stacked, in order.
    """

    method: str
    inputs: tuple[Input, ...]
    base: str | None = None
    parameters: Mapping[str, Setting] = field(default_factory=dict)
    dtype: str = "bfloat16"
    slices: tuple[Slice, ...] = ()
    out_dtype: str | None = None

    @property
    def atoms(self) -> tuple[str, ...]:
        """The names of the dictionary's atoms that go in."""
        names = [*(model.model for model in self.inputs), *(part.model for part in self.slices), *([self.base] if self.base else [])]
        return tuple(dict.fromkeys(name for name in names if name != BASE))

    @property
    def settings(self) -> int:
        """How many there are, of all models and of each."""
        return len(self.parameters) + sum(len(model.parameters) for model in self.inputs)

    def setting(self, atom: str, name: str) -> Setting:
        """An input's own setting, None where it has none."""
        return next((model.parameters.get(name) for model in self.inputs if model.model == atom), None)

    def with_input(self, atom: str, **settings: Setting) -> Recipe:
        """The recipe with other settings for one input."""
        inputs = tuple(replace(model, parameters={**model.parameters, **settings}) if model.model == atom else model for model in self.inputs)
        return replace(self, inputs=inputs)

    def with_parameters(self, **settings: Setting) -> Recipe:
        """The recipe with other settings for all models."""
        return replace(self, parameters={**self.parameters, **settings})

    def configuration(self, place: Mapping[str, str]) -> dict[str, Any]:
        """As mergekit reads it.

        Args:
            place: how mergekit is to find each model, by name.
        """
        models = [{"model": place[model.model], **({"parameters": dict(model.parameters)} if model.parameters else {})} for model in self.inputs]
        written: dict[str, Any] = {"merge_method": self.method}
        if self.base is not None:
            written["base_model"] = place[self.base]
        written["dtype"] = self.dtype
        if self.out_dtype is not None:
            written["out_dtype"] = self.out_dtype
        if self.parameters:
            written["parameters"] = dict(self.parameters)
        if self.slices:
            sources = [{"model": place[part.model], **_source(part)} for part in self.slices]
            return {**written, "slices": [{"sources": [source]} for source in sources]}
        written["models"] = models
        return written


def parameters_of(recipe: Recipe) -> dict[str, Any]:
    """Settings by atom, and those for all."""
    models = {named(model.model): dict(model.parameters) for model in recipe.inputs}
    for part in recipe.slices:
        models.setdefault(named(part.model), {}).setdefault("layers", []).append([part.first, part.end])
    slices = {"slices": [{"model": named(part.model), **_source(part)} for part in recipe.slices]}
    return {"models": models, **(slices if recipe.slices else {}), **recipe.parameters}


def _source(part: Slice) -> dict[str, Any]:
    return {"layer_range": [part.first, part.end], **({"parameters": dict(part.parameters)} if part.parameters else {})}


def named(model: str) -> str:
    """What a record calls a model."""
    return "the base" if model == BASE else model
