"""A synthetic model with the statistics of a large one: wide modules on bfloat16's grid, atoms that share directions.

An atom's q-th direction pair leans by alpha on one that all atoms share, on both sides, so the cosine of two atoms is about
alpha_i^2 alpha_j^2. Singular values fall by .85 from one to the next; norms differ between modules.

A target is made as mergekit makes one of adapters: each is merged into the base in bfloat16 and subtracted again, weighed and
added in bfloat16.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from unmerge.vectors import Dense, Held, LowRank

Shapes = Mapping[str, tuple[int, int]]

#: standard deviation of the base's weights
_WEIGHT = 0.02
_DECAY = 0.85


@dataclass(frozen=True)
class Synthetic:
    """A base and its adapters.

    Attributes:
        base: by tensor, in bfloat16.
        atoms: low-rank, in float32.
    """

    base: Mapping[str, Tensor]
    atoms: tuple[Held, ...]

    @staticmethod
    def make(shapes: Shapes, count: int, rank: int, cosine: float, seed: int) -> Synthetic:
        """Draw a model; ``cosine`` is the mean one between its atoms."""
        generator = torch.Generator().manual_seed(seed)
        base = {name: (_WEIGHT * torch.randn(shape, generator=generator)).bfloat16() for name, shape in shapes.items()}
        # alpha^2 of every atom, around the square root of the cosine
        leans = cosine**0.5 * (0.75 + 0.5 * torch.rand(count, generator=generator))
        deltas: list[dict[str, LowRank]] = [{} for _ in range(count)]
        for name, (out, into) in shapes.items():
            shared = [_unit(torch.randn(side, rank, generator=generator)) for side in (out, into)]
            for atom, lean in enumerate(leans):
                left, right = (lean.sqrt() * common + (1 - lean).sqrt() * _unit(torch.randn(common.shape, generator=generator)) for common in shared)
                size = torch.exp(0.3 * torch.randn(1, generator=generator)) * _DECAY ** torch.arange(rank)
                deltas[atom][name] = LowRank(left * size, right.T.contiguous())
        return Synthetic(base, tuple(Held(f"atom{atom}", changes) for atom, changes in enumerate(deltas)))

    def scaled(self, factor: float) -> Synthetic:
        """All atoms longer or shorter."""
        return Synthetic(
            self.base, tuple(Held(atom.name, {name: delta.scaled(factor) for name, delta in atom.deltas.items()}) for atom in self.atoms)
        )

    def leaving(self, unchanged: float, weights: Mapping[int, float]) -> Synthetic:
        """With the atoms at the length at which a merge leaves this share of the weights as they are."""
        low, high = math.log(1e-5), math.log(10)
        for _ in range(12):
            middle = (low + high) / 2
            low, high = (middle, high) if self.scaled(math.exp(middle)).unchanged(weights) > unchanged else (low, middle)
        return self.scaled(math.exp(low))

    def unchanged(self, weights: Mapping[int, float]) -> float:
        """The share of the weights that a merge leaves as they are."""
        same = sum(int((self.change(tensor, weights) == 0).sum()) for tensor in self.base)
        return same / sum(tensor.numel() for tensor in self.base.values())

    def change(self, tensor: str, weights: Mapping[int, float]) -> Tensor:
        """What a merge changes in one tensor, float32."""
        base = self.base[tensor]
        deltas = [
            ((base.float() + self.atoms[atom].deltas[tensor].dense()).bfloat16() - base) * torch.tensor(weight).bfloat16()
            for atom, weight in weights.items()
        ]
        return (base + torch.stack(deltas).sum(0)).float() - base.float()

    def target(self, weights: Mapping[int, float]) -> Held:
        """The merge of some atoms, by place and weight."""
        return Held("target", {tensor: Dense(self.change(tensor, weights)) for tensor in self.base})


def acted(weight: float) -> float:
    """The coefficient that acts where mergekit is asked for a weight in bfloat16."""
    return float(torch.tensor(weight).bfloat16())


def _unit(directions: Tensor) -> Tensor:
    length: Tensor = directions.norm(dim=0)
    return directions / length
