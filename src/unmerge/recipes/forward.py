"""One tensor of a merge, by mergekit's own method in this process: what ``merge`` writes, without files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor

from unmerge.recipes.mergekit_adapter import mergekit_module
from unmerge.recipes.recipe import Recipe, Setting

_LAYER = re.compile(r"\.(?:layers|h|blocks)\.(\d+)\.")


def layer_of(tensor: str) -> int | None:
    """The number of the layer that a tensor belongs to, None outside of the layers."""
    found = _LAYER.search(tensor)
    return int(found[1]) if found else None


def depth_of(tensor: str, layers: int) -> float:
    """Where along a gradient mergekit sees a tensor: 0 for the first layer, 1 for the last, 0 outside of the layers."""
    layer = layer_of(tensor)
    if layer is None:
        return 0.0
    return layer / (layers - 1) if layers > 1 else 1.0


def at(setting: Setting, tensor: str, depth: float) -> Any:
    """The value that a setting has for one tensor: gradients and filters are mergekit's."""
    if isinstance(setting, list):
        setting = [_conditional()(**part) if isinstance(part, dict) else part for part in setting]
    return _evaluate()(tensor, setting, depth, validate=lambda value: value)


def forward(recipe: Recipe, tensors: Mapping[str, Tensor], tensor: str, depth: float) -> Tensor:
    """The merged tensor, in the recipe's dtype.

    Args:
        recipe: what to run.
        tensors: the tensor in every model that goes in, by the model's name.
        tensor: its name, which filters look at.
        depth: see ``depth_of``.
    """
    base = mergekit_module("mergekit.merge_methods.base")
    method = method_named(recipe.method)
    order = [model.model for model in recipe.inputs]
    if recipe.base is not None and recipe.base not in order:
        order.append(recipe.base)
    entries = tuple(base.TensorEntry(id=name, tensor=tensors[name], is_base=name == recipe.base) for name in order)
    group = base.TensorGroup(entries=entries, metadata=base.TensorMetadata(name=tensor))
    own: dict[str, dict[str, Any]] = {}
    for model in recipe.inputs:
        for name, setting in model.parameters.items():
            own.setdefault(name, {})[model.model] = at(setting, tensor, depth)
    shared = {name: at(setting, tensor, depth) for name, setting in recipe.parameters.items()}
    (merged,) = method((group,), parameters={**shared, **own}, dtype=getattr(torch, recipe.dtype))
    result: Tensor = merged
    return result


@cache
def method_named(name: str) -> Any:
    """One of mergekit's merge methods."""
    return mergekit_module("mergekit.merge_methods").get(name)


@cache
def _evaluate() -> Any:
    return mergekit_module("mergekit.config").evaluate_setting


@cache
def _conditional() -> Any:
    return mergekit_module("mergekit.config").ConditionalParameter
