"""What each additive adapter type does to one tensor. Shapes follow PEFT; every form is tested against PEFT's own merge.

LoRA            s B A                                (Hu et al. 2021, arXiv 2106.09685; rslora: Kalajdzievski 2023)
DoRA            m (W + s B A) / ||W + s B A|| - W    norm over each row (Liu et al. 2024, arXiv 2402.09353)
LoHa            s (A1 B1) o (A2 B2)                  (Hyeon-Woo et al. 2022, arXiv 2108.06098)
LoKr            s (W1 kron W2)                       (Yeh et al. 2024, arXiv 2309.14859)
MLX's LoRA      s (a b)^T
saved modules   W' - W
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from unmerge.vectors import Delta, Dense, LowRank, Shape, wide

Parts = Mapping[str, Tensor]
Shapes = Mapping[str, Shape]


@dataclass(frozen=True)
class Form(ABC):
    """How the tensors of one module become a change.

    Attributes:
        parts: the tensors that mark the form, exactly those.
        needs_base: whether the change depends on the base's weights.
    """

    parts: frozenset[str]
    needs_base: bool = False

    @abstractmethod
    def shape(self, shapes: Shapes, transposed: bool) -> Shape:
        """The shape of the change.

        Raises:
            ValueError: the parts do not fit together.
        """

    def rank(self, shapes: Shapes) -> int | None:
        """The rank that the parts show, where they do; it decides the scale."""
        return None

    @abstractmethod
    def delta(self, parts: Parts, scale: float, transposed: bool, base: Tensor | None) -> Delta:
        """The change, in float32 or wider."""


class Lora(Form):
    """s B A; B: (out, r), A: (r, in)."""

    def shape(self, shapes: Shapes, transposed: bool) -> Shape:
        out, into = _product(shapes["lora_B.weight"], shapes["lora_A.weight"])
        return (into, out) if transposed else (out, into)

    def rank(self, shapes: Shapes) -> int | None:
        return shapes["lora_A.weight"][0]

    def delta(self, parts: Parts, scale: float, transposed: bool, base: Tensor | None) -> Delta:
        b, a = wide(parts["lora_B.weight"]), wide(parts["lora_A.weight"])
        b = b if scale == 1 else b * scale
        return LowRank(a.T, b.T) if transposed else LowRank(b, a)


class MlxLora(Form):
    """s (a b)^T, as mlx-lm has it; a: (in, r), b: (r, out)."""

    def shape(self, shapes: Shapes, transposed: bool) -> Shape:
        into, out = _product(shapes["lora_a"], shapes["lora_b"])
        return (out, into)

    def rank(self, shapes: Shapes) -> int | None:
        return shapes["lora_a"][1]

    def delta(self, parts: Parts, scale: float, transposed: bool, base: Tensor | None) -> Delta:
        return LowRank(wide(parts["lora_b"]).T * scale, wide(parts["lora_a"]).T)


class EmbeddingLora(Form):
    """(s B A)^T; B: (width, r), A: (r, vocabulary)."""

    def shape(self, shapes: Shapes, transposed: bool) -> Shape:
        width, vocabulary = _product(shapes["lora_embedding_B"], shapes["lora_embedding_A"])
        return (vocabulary, width)

    def rank(self, shapes: Shapes) -> int | None:
        return shapes["lora_embedding_A"][0]

    def delta(self, parts: Parts, scale: float, transposed: bool, base: Tensor | None) -> Delta:
        return LowRank(wide(parts["lora_embedding_A"]).T * scale, wide(parts["lora_embedding_B"]).T)


class Dora(Lora):
    """m (W + s B A) / ||W + s B A|| - W; m: (out,), one for each row of W (each column of a transposed one)."""

    def shape(self, shapes: Shapes, transposed: bool) -> Shape:
        return _with_magnitudes(shapes, super().shape(shapes, transposed), 1 if transposed else 0)

    def delta(self, parts: Parts, scale: float, transposed: bool, base: Tensor | None) -> Delta:
        assert base is not None
        return _renormed(base, super().delta(parts, scale, transposed, None), parts, dim=0 if transposed else 1)


class EmbeddingDora(EmbeddingLora):
    """As DoRA, with the norm over the vocabulary; m: (width,)."""

    def shape(self, shapes: Shapes, transposed: bool) -> Shape:
        return _with_magnitudes(shapes, super().shape(shapes, transposed), 1)

    def delta(self, parts: Parts, scale: float, transposed: bool, base: Tensor | None) -> Delta:
        assert base is not None
        return _renormed(base, super().delta(parts, scale, transposed, None), parts, dim=0)


class Loha(Form):
    """s (A1 B1) o (A2 B2); A: (out, r), B: (r, in)."""

    def shape(self, shapes: Shapes, transposed: bool) -> Shape:
        one, two = (_product(shapes[f"hada_w{side}_a"], shapes[f"hada_w{side}_b"]) for side in (1, 2))
        if one != two:
            raise ValueError(f"products of shapes {one} and {two}")
        return one

    def rank(self, shapes: Shapes) -> int | None:
        return shapes["hada_w1_b"][0]

    def delta(self, parts: Parts, scale: float, transposed: bool, base: Tensor | None) -> Delta:
        one, two = (wide(parts[f"hada_w{side}_a"]) @ wide(parts[f"hada_w{side}_b"]) for side in (1, 2))
        return Dense(one * two * scale)


class Lokr(Form):
    """s (W1 kron W2), each whole or as a product of two factors."""

    def shape(self, shapes: Shapes, transposed: bool) -> Shape:
        one, two = (shapes.get(f"lokr_w{side}") or _product(shapes[f"lokr_w{side}_a"], shapes[f"lokr_w{side}_b"]) for side in (1, 2))
        return (one[0] * two[0], one[1] * two[1])

    def rank(self, shapes: Shapes) -> int | None:
        return next((shape[0] for part, shape in sorted(shapes.items()) if part.endswith("_b")), None)

    def delta(self, parts: Parts, scale: float, transposed: bool, base: Tensor | None) -> Delta:
        one, two = (
            wide(parts[f"lokr_w{side}"]) if f"lokr_w{side}" in parts else wide(parts[f"lokr_w{side}_a"]) @ wide(parts[f"lokr_w{side}_b"])
            for side in (1, 2)
        )
        return Dense(torch.kron(one, two) * scale)


class LoraBias(Form):
    """s x the bias of B; (out,)."""

    def shape(self, shapes: Shapes, transposed: bool) -> Shape:
        return shapes["lora_B.bias"]

    def delta(self, parts: Parts, scale: float, transposed: bool, base: Tensor | None) -> Delta:
        return Dense(wide(parts["lora_B.bias"]) * scale)


class Saved(Form):
    """A tensor stored whole (modules_to_save, a trained bias, a resized embedding): W' - W."""

    def shape(self, shapes: Shapes, transposed: bool) -> Shape:
        return shapes["saved"]

    def delta(self, parts: Parts, scale: float, transposed: bool, base: Tensor | None) -> Delta:
        assert base is not None
        return Dense(wide(parts["saved"]) - wide(base))


def _product(left: Shape, right: Shape) -> Shape:
    """The shape of a product of two matrices."""
    if left[1] != right[0]:
        raise ValueError(f"factors of shapes {left} and {right}")
    return (left[0], right[1])


def _with_magnitudes(shapes: Shapes, shape: Shape, dim: int) -> Shape:
    """The shape, if there is one magnitude for each index of ``dim``."""
    if (found := shapes["lora_magnitude_vector"]) != (shape[dim],):
        raise ValueError(f"magnitudes of shape {found} for weights of shape {shape}")
    return shape


def _renormed(base: Tensor, step: Delta, parts: Parts, dim: int) -> Dense:
    """m (W + dW) / ||W + dW|| - W, the norm taken along ``dim``."""
    moved = wide(base) + step.dense()
    norms = torch.linalg.vector_norm(moved, dim=dim, keepdim=True)
    return Dense(moved * (wide(parts["lora_magnitude_vector"]).unsqueeze(dim) / norms) - wide(base))


def _lokr_forms() -> tuple[Form, ...]:
    whole, split = ("lokr_w{}",), ("lokr_w{}_a", "lokr_w{}_b")
    return tuple(
        Lokr(frozenset([part.format(1) for part in one] + [part.format(2) for part in two])) for one in (whole, split) for two in (whole, split)
    )


LORA = Lora(frozenset({"lora_A.weight", "lora_B.weight"}))
EMBEDDING_LORA = EmbeddingLora(frozenset({"lora_embedding_A", "lora_embedding_B"}))
#: every form, for the weight of a module; the one whose parts are exactly those present is it
WEIGHT_FORMS: tuple[Form, ...] = (
    LORA,
    MlxLora(frozenset({"lora_a", "lora_b"})),
    EMBEDDING_LORA,
    Dora(frozenset({"lora_A.weight", "lora_B.weight", "lora_magnitude_vector"}), needs_base=True),
    EmbeddingDora(frozenset({"lora_embedding_A", "lora_embedding_B", "lora_magnitude_vector"}), needs_base=True),
    Loha(frozenset({"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"})),
    *_lokr_forms(),
)
LORA_BIAS = LoraBias(frozenset({"lora_B.bias"}))
SAVED = Saved(frozenset({"saved"}), needs_base=True)

#: parts that are vectors; all others are matrices
VECTORS = frozenset({"lora_magnitude_vector", "lora_B.bias"})
#: every name a part can have; an older spelling maps to today's
PARTS = {part: part for form in (*WEIGHT_FORMS, LORA_BIAS) for part in form.parts} | {"lora_magnitude_vector.weight": "lora_magnitude_vector"}
