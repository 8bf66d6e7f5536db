"""What each additive adapter type does to one tensor. Shapes follow PEFT; every form is tested against PEFT's own merge.

    LoRA            s B A                                (Hu et al. 2021, arXiv 2106.09685; rslora: Kalajdzievski 2023)
    DoRA            m (W + s B A) / ||W + s B A|| - W    norm over each row (Liu et al. 2024, arXiv 2402.09353)
    LoHa            s (A1 B1) o (A2 B2)                  (Hyeon-Woo et al. 2022, arXiv 2108.06098)
    LoKr            s (W1 kron W2)                       (Yeh et al. 2024, arXiv 2309.14859)
    saved modules   W' - W
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from unmerge.vectors import Delta, Dense, LowRank, Shape

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
        """The shape of the change."""

    @abstractmethod
    def delta(self, parts: Parts, scale: float, transposed: bool, base: Tensor | None) -> Delta:
        """The change, in float32."""


class Lora(Form):
    """s B A; B: (out, r), A: (r, in)."""

    def shape(self, shapes: Shapes, transposed: bool) -> Shape:
        out, into = shapes["lora_B.weight"][0], shapes["lora_A.weight"][1]
        return (into, out) if transposed else (out, into)

    def delta(self, parts: Parts, scale: float, transposed: bool, base: Tensor | None) -> Delta:
        b, a = parts["lora_B.weight"].float() * scale, parts["lora_A.weight"].float()
        return LowRank(a.T, b.T) if transposed else LowRank(b, a)


class Dora(Lora):
    """m (W + s B A) / ||W + s B A|| - W; m: (out,)."""

    def delta(self, parts: Parts, scale: float, transposed: bool, base: Tensor | None) -> Delta:
        assert base is not None
        before = base.float()
        moved = before + super().delta(parts, scale, transposed, None).dense()
        norms = torch.linalg.vector_norm(moved, dim=0 if transposed else 1)
        factor = parts["lora_magnitude_vector"].float().reshape(-1) / norms
        return Dense(moved * (factor if transposed else factor[:, None]) - before)


class EmbeddingLora(Form):
    """(s B A)^T; B: (width, r), A: (r, vocabulary)."""

    def shape(self, shapes: Shapes, transposed: bool) -> Shape:
        return (shapes["lora_embedding_A"][1], shapes["lora_embedding_B"][0])

    def delta(self, parts: Parts, scale: float, transposed: bool, base: Tensor | None) -> Delta:
        return LowRank(parts["lora_embedding_A"].float().T * scale, parts["lora_embedding_B"].float().T)


class Loha(Form):
    """s (A1 B1) o (A2 B2); A: (out, r), B: (r, in)."""

    def shape(self, shapes: Shapes, transposed: bool) -> Shape:
        return (shapes["hada_w1_a"][0], shapes["hada_w1_b"][1])

    def delta(self, parts: Parts, scale: float, transposed: bool, base: Tensor | None) -> Delta:
        one, two = (parts[f"hada_w{side}_a"].float() @ parts[f"hada_w{side}_b"].float() for side in (1, 2))
        return Dense(one * two * scale)


class Lokr(Form):
    """s (W1 kron W2), each whole or as a product of two factors."""

    def shape(self, shapes: Shapes, transposed: bool) -> Shape:
        one, two = (shapes.get(f"lokr_w{side}") or (shapes[f"lokr_w{side}_a"][0], shapes[f"lokr_w{side}_b"][1]) for side in (1, 2))
        return (one[0] * two[0], one[1] * two[1])

    def delta(self, parts: Parts, scale: float, transposed: bool, base: Tensor | None) -> Delta:
        one, two = (
            parts[f"lokr_w{side}"].float() if f"lokr_w{side}" in parts else parts[f"lokr_w{side}_a"].float() @ parts[f"lokr_w{side}_b"].float()
            for side in (1, 2)
        )
        return Dense(torch.kron(one, two) * scale)


class LoraBias(Form):
    """s x the bias of B; (out,)."""

    def shape(self, shapes: Shapes, transposed: bool) -> Shape:
        return shapes["lora_B.bias"]

    def delta(self, parts: Parts, scale: float, transposed: bool, base: Tensor | None) -> Delta:
        return Dense(parts["lora_B.bias"].float() * scale)


class Saved(Form):
    """A tensor stored whole (modules_to_save, a trained bias, a resized embedding): W' - W."""

    def shape(self, shapes: Shapes, transposed: bool) -> Shape:
        return shapes["saved"]

    def delta(self, parts: Parts, scale: float, transposed: bool, base: Tensor | None) -> Delta:
        assert base is not None
        return Dense(parts["saved"].float() - base.float())


def _lokr_forms() -> tuple[Form, ...]:
    whole, split = ("lokr_w{}",), ("lokr_w{}_a", "lokr_w{}_b")
    return tuple(
        Lokr(frozenset([part.format(1) for part in one] + [part.format(2) for part in two])) for one in (whole, split) for two in (whole, split)
    )


LORA = Lora(frozenset({"lora_A.weight", "lora_B.weight"}))
#: every form, for the weight of a module; the first whose parts are exactly those present is the one
WEIGHT_FORMS: tuple[Form, ...] = (
    LORA,
    Dora(frozenset({"lora_A.weight", "lora_B.weight", "lora_magnitude_vector"}), needs_base=True),
    EmbeddingLora(frozenset({"lora_embedding_A", "lora_embedding_B"})),
    Loha(frozenset({"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"})),
    *_lokr_forms(),
)
LORA_BIAS = LoraBias(frozenset({"lora_B.bias"}))
SAVED = Saved(frozenset({"saved"}), needs_base=True)

#: every name a part can have; an older spelling maps to today's
PARTS = {part: part for form in (*WEIGHT_FORMS, LORA_BIAS) for part in form.parts} | {"lora_magnitude_vector.weight": "lora_magnitude_vector"}
