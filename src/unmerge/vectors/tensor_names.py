"""Which layer a tensor is in, and what kind of module it belongs to: both are read off its name.

    model.layers.3.self_attn.q_proj.weight      layer   model.layers.3
                                                kind    model.layers.*.self_attn.q_proj.weight

The first number in a name is the layer's. A tensor without one (embeddings, the last norm) is outside the layers, and a kind of its own.
"""

from __future__ import annotations

OUTSIDE = "outside the layers"


def layer_of(tensor: str) -> str:
    """The layer that a tensor is in."""
    parts = tensor.split(".")
    number = next((place for place, part in enumerate(parts) if part.isdigit()), None)
    return OUTSIDE if number is None else ".".join(parts[: number + 1])


def kind_of(tensor: str) -> str:
    """The tensor's name without its numbers: the same in every layer, and for every expert of a layer."""
    return ".".join("*" if part.isdigit() else part for part in tensor.split("."))
