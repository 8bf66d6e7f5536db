"""Tensors that have one row a token: embeddings and output heads. A vocabulary may differ between models that otherwise agree.

They are told by structure: a matrix (or a bias) outside of the layers with as many rows as the configuration says that there are tokens. The
names that most models give them decide where several matrices have so many rows, or the configuration does not say.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from unmerge.vectors import Shape

#: what most models call them; it is the end of a longer name
EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "embed_in.weight", "word_embeddings.weight")
HEADS = ("lm_head.weight", "embed_out.weight")


def is_embedding(tensor: str) -> bool:
    """Whether a tensor is a token embedding, by the name that most models give it."""
    return tensor.endswith(EMBEDDINGS)


def is_head(tensor: str) -> bool:
    """Whether a tensor is an output head, by its name."""
    return tensor.endswith(HEADS)


def is_vocabulary(tensor: str) -> bool:
    """Whether a tensor has one row a token, by the name that most models give it."""
    return tensor.endswith((*EMBEDDINGS, *HEADS))


def vocabulary_of(shapes: Mapping[str, Shape], config: Mapping[str, Any]) -> frozenset[str]:
    """The tensors that have one row a token.

    Args:
        shapes: of all tensors of a model.
        config: its configuration, which may lack the number of tokens or be out of date.
    """
    outside = {tensor: shape for tensor, shape in shapes.items() if len(shape) in (1, 2) and is_outside(tensor)}
    said = set(_sizes(config))
    sizes = said & {shape[0] for shape in outside.values() if len(shape) == 2}
    if said and not sizes:  # out of date, as merging tools leave it: the longest of the matrices that stand up
        sizes = {max((shape[0] for shape in outside.values() if len(shape) == 2 and shape[0] > shape[1]), default=0)}
    return frozenset(tensor for tensor, shape in outside.items() if shape[0] in sizes or is_embedding(tensor) or is_head(tensor))


def embedding_of(shapes: Mapping[str, Shape], config: Mapping[str, Any]) -> str | None:
    """The input embedding, where there is one."""
    usual = next((tensor for tensor in shapes if is_embedding(tensor)), None)
    others = (tensor for tensor in sorted(vocabulary_of(shapes, config)) if len(shapes[tensor]) == 2 and not is_head(tensor))
    return usual or next(others, None)


def is_outside(tensor: str) -> bool:
    """Whether a tensor belongs to no layer: its name has no number."""
    return not any(word.isdecimal() for word in tensor.split("."))


def rows_beyond(count: int, compared: int) -> str:
    """The rows beyond the first ones."""
    return f"row {compared} of {count}" if count - compared == 1 else f"rows {compared} to {count - 1} of {count}"


def rows_left_out(ours: int, theirs: int, own: str, other: str) -> str:
    """Why some rows are not compared.

    Args:
        ours: how many there are in what is looked at.
        theirs: how many there are in what it is compared with.
        own: what to call the first.
        other: what to call the second.
    """
    side, them = own if ours > theirs else other, "it" if abs(ours - theirs) == 1 else "them"
    return f"{rows_beyond(max(ours, theirs), min(ours, theirs))}: only the {side} has {them}, and the {min(ours, theirs)} that both have are compared"


def _sizes(config: Mapping[str, Any]) -> Iterator[int]:
    """Every number of tokens that a configuration names, its parts' too (a vision-language model's ``text_config``)."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _sizes(value)
        elif key == "vocab_size" and isinstance(value, int):
            yield value
