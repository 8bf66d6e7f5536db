"""Directions in parameter space that are low-rank in every tensor, and inner products that never expand them.

A set of n_v directions is kept as factors. With G a gradient and V_k a direction,

    CP      V_k = sum_r  a_kr o b_kr o ...                    <G, V_k> = sum_r G x_1 a_kr x_2 b_kr ...
    Tucker  V_k = C_k x_1 A_k x_2 B_k ...                     <G, V_k> = <G x_1 A_k^T x_2 B_k^T ..., C_k>

and <V_k, V_l> from the factors' own inner products. Nothing of the size n_w x n_v is ever built; ``dense`` forms the
directions of one tensor for those who ask.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from unmerge.core.errors import BadInput, unknown_name

#: of a tensor, without the axes of runs and directions
Shape = tuple[int, ...]
#: tensors of more dimensions have no einsum letters here
_MOST = 4


class LowRankTensor(ABC):
    """One tensor's part of all directions."""

    @property
    @abstractmethod
    def factors(self) -> dict[str, Tensor]:
        """What is stored, by name; each (runs, n_v, ...)."""

    @abstractmethod
    def project(self, gradients: Float[Tensor, "runs samples *shape"]) -> Float[Tensor, "runs samples n_v"]:
        """The inner product of every gradient with every direction."""

    @abstractmethod
    def gram(self) -> Float[Tensor, "runs n_v n_v"]:
        """The inner products of the directions with one another."""

    @abstractmethod
    def squared_norms(self) -> Float[Tensor, "runs n_v"]:
        """The diagonal of ``gram``, without the rest."""

    @abstractmethod
    def dense(self) -> Float[Tensor, "runs n_v *shape"]:
        """The directions themselves."""

    @abstractmethod
    def scale_(self, factor: Float[Tensor, "runs n_v"]) -> None:
        """Multiply every direction in place."""


@dataclass(frozen=True)
class CP(LowRankTensor):
    """A sum of ``rank`` outer products.

    Attributes:
        modes: a factor for each dimension, (runs, n_v, rank, size).
    """

    modes: tuple[Tensor, ...]

    @staticmethod
    def normal(shape: Shape, count: int, rank: int, generators: Sequence[torch.Generator]) -> CP:
        """Factors of normal noise; a vector needs one product only."""
        rank = 1 if len(shape) == 1 else rank
        return CP(tuple(_noise((count, rank, size), generators) for size in shape))

    @property
    def factors(self) -> dict[str, Tensor]:
        return {f"mode{place}": mode for place, mode in enumerate(self.modes)}

    def project(self, gradients: Float[Tensor, "runs samples *shape"]) -> Float[Tensor, "runs samples n_v"]:
        runs, count, rank = self.modes[0].shape[:3]
        samples = gradients.shape[1]
        # the last dimension meets every product's vector in one matrix product; the others one by one
        last = self.modes[-1].reshape(runs, count * rank, -1)
        left = gradients.reshape(runs, -1, last.shape[-1]) @ last.mT
        for mode in reversed(self.modes[:-1]):
            size = mode.shape[-1]
            vectors = mode.reshape(runs, 1, count * rank, size).mT
            left = (left.reshape(runs, -1, size, count * rank) * vectors).sum(2)
        return left.reshape(runs, samples, count, rank).sum(-1)

    def gram(self) -> Float[Tensor, "runs n_v n_v"]:
        runs, count, rank = self.modes[0].shape[:3]
        flat = [mode.reshape(runs, count * rank, -1) for mode in self.modes]
        products = math.prod([mode @ mode.mT for mode in flat], start=torch.ones(()))
        return products.reshape(runs, count, rank, count, rank).sum((2, 4))

    def squared_norms(self) -> Float[Tensor, "runs n_v"]:
        return math.prod([mode @ mode.mT for mode in self.modes], start=torch.ones(())).sum((-1, -2))

    def dense(self) -> Float[Tensor, "runs n_v *shape"]:
        result = self.modes[0]
        for place, mode in enumerate(self.modes[1:], 1):
            result = result.unsqueeze(-1) * mode.reshape(*mode.shape[:3], *[1] * place, mode.shape[-1])
        return result.sum(2)

    def scale_(self, factor: Float[Tensor, "runs n_v"]) -> None:
        # each dimension takes its share, so that none grows at the cost of another; a sign goes into the first
        share = factor.abs() ** (1 / len(self.modes))
        for place, mode in enumerate(self.modes):
            mode.mul_((share * factor.sign() if place == 0 else share)[..., None, None])


@dataclass(frozen=True)
class Tucker(LowRankTensor):
    """A small core, and a factor for each dimension.

    Attributes:
        core: (runs, n_v, rank_1, rank_2, ...).
        modes: a factor for each dimension, (runs, n_v, rank_m, size).
    """

    core: Tensor
    modes: tuple[Tensor, ...]

    @staticmethod
    def normal(shape: Shape, count: int, rank: int, generators: Sequence[torch.Generator]) -> Tucker:
        """Core and factors of normal noise; no rank above the dimension's size, and a vector has rank 1."""
        ranks = [1 if len(shape) == 1 else min(rank, size) for size in shape]
        core = _noise((count, *ranks), generators)
        return Tucker(core, tuple(_noise((count, rank, size), generators) for rank, size in zip(ranks, shape, strict=True)))

    @property
    def factors(self) -> dict[str, Tensor]:
        return {"core": self.core} | {f"mode{place}": mode for place, mode in enumerate(self.modes)}

    def project(self, gradients: Float[Tensor, "runs samples *shape"]) -> Float[Tensor, "runs samples n_v"]:
        small, large = "abcd"[: len(self.modes)], "wxyz"[: len(self.modes)]
        left = torch.einsum(f"sn{large},sk{small[-1]}{large[-1]}->sn{large[:-1]}k{small[-1]}", gradients, self.modes[-1])
        for place in range(len(self.modes) - 2, -1, -1):
            have, want = large[:place], small[place + 1 :]
            left = torch.einsum(
                f"sn{have}{large[place]}k{want},sk{small[place]}{large[place]}->sn{have}k{small[place]}{want}", left, self.modes[place]
            )
        return torch.einsum(f"snk{small},sk{small}->snk", left, self.core)

    def gram(self) -> Float[Tensor, "runs n_v n_v"]:
        here, there = "abcd"[: len(self.modes)], "wxyz"[: len(self.modes)]
        products = [torch.einsum("skri,slti->sklrt", mode, mode) for mode in self.modes]
        terms = ",".join(f"skl{a}{b}" for a, b in zip(here, there, strict=True))
        return torch.einsum(f"sk{here},{terms},sl{there}->skl", self.core, *products, self.core)

    def squared_norms(self) -> Float[Tensor, "runs n_v"]:
        here, there = "abcd"[: len(self.modes)], "wxyz"[: len(self.modes)]
        terms = ",".join(f"sk{a}{b}" for a, b in zip(here, there, strict=True))
        return torch.einsum(f"sk{here},{terms},sk{there}->sk", self.core, *[mode @ mode.mT for mode in self.modes], self.core)

    def dense(self) -> Float[Tensor, "runs n_v *shape"]:
        small, large = "abcd"[: len(self.modes)], "wxyz"[: len(self.modes)]
        terms = ",".join(f"sk{a}{b}" for a, b in zip(small, large, strict=True))
        return torch.einsum(f"sk{small},{terms}->sk{large}", self.core, *self.modes)

    def scale_(self, factor: Float[Tensor, "runs n_v"]) -> None:
        self.core.mul_(factor.view(*factor.shape, *[1] * len(self.modes)))


FORMS: dict[str, type[CP] | type[Tucker]] = {"cp": CP, "tucker": Tucker}


@dataclass(frozen=True)
class Directions:
    """A set of directions over several tensors.

    Attributes:
        tensors: each tensor's part, by its name.
    """

    tensors: dict[str, LowRankTensor]

    @staticmethod
    def normal(
        shapes: Mapping[str, Shape], count: int, ranks: Mapping[str, int], generators: Sequence[torch.Generator], form: str = "cp"
    ) -> Directions:
        """Random directions of unit norm.

        Args:
            shapes: of the tensors, one to four dimensions each.
            count: n_v, directions in a set.
            ranks: by tensor.
            generators: one for each run, so that a run does not depend on how many there are.
            form: ``cp`` or ``tucker``.

        Raises:
            BadInput: an unknown form, a tensor of another dimension, a rank below 1.
        """
        if form not in FORMS:
            raise unknown_name(form, FORMS, "form")
        for name, shape in shapes.items():
            if not 1 <= len(shape) <= _MOST:
                found = f"{len(shape)} dimensions"
                raise BadInput(
                    expected=f"tensors of 1 to {_MOST} dimensions", found=found, where="parameters", tensor=name, hint="leave it out of names"
                )
            if ranks[name] < 1:
                raise BadInput(expected="a rank of 1 or more", found=str(ranks[name]), where="rank", tensor=name, hint="give another rank")
        made = Directions({name: FORMS[form].normal(shape, count, ranks[name], generators) for name, shape in shapes.items()})
        made.normalise_()
        return made

    @property
    def factors(self) -> dict[str, Tensor]:
        """Everything that is stored, by ``tensor/part``."""
        return {f"{name}/{part}": factor for name, tensor in self.tensors.items() for part, factor in tensor.factors.items()}

    def clone(self) -> Directions:
        """A copy that shares nothing."""
        return Directions.of({name: factor.detach().clone() for name, factor in self.factors.items()})

    @staticmethod
    def of(factors: Mapping[str, Tensor]) -> Directions:
        """The inverse of ``factors``."""
        parts: dict[str, dict[str, Tensor]] = {}
        for name, factor in factors.items():
            tensor, _, part = name.rpartition("/")
            parts.setdefault(tensor, {})[part] = factor
        tensors: dict[str, LowRankTensor] = {}
        for tensor, own in parts.items():
            modes = tuple(own[f"mode{place}"] for place in range(sum(part != "core" for part in own)))
            tensors[tensor] = Tucker(own["core"], modes) if "core" in own else CP(modes)
        return Directions(tensors)

    def project(self, gradients: Mapping[str, Tensor]) -> Float[Tensor, "runs samples n_v"]:
        """<g_i, V_k> over all tensors."""
        parts = [tensor.project(gradients[name]) for name, tensor in self.tensors.items()]
        return torch.stack(parts).sum(0)

    def gram(self) -> Float[Tensor, "runs n_v n_v"]:
        """<V_k, V_l> over all tensors."""
        return torch.stack([tensor.gram() for tensor in self.tensors.values()]).sum(0)

    def norms(self) -> Float[Tensor, "runs n_v"]:
        """||V_k|| over all tensors."""
        return torch.stack([tensor.squared_norms() for tensor in self.tensors.values()]).sum(0).clamp_min(0).sqrt()

    @torch.no_grad()
    def normalise_(self) -> None:
        """Make every direction's joint norm 1, in place; the directions of zero stay."""
        norms = self.norms()
        factor = torch.where(norms > 0, 1 / norms, torch.ones_like(norms))
        for tensor in self.tensors.values():
            # CP shares a factor among its dimensions, and every tensor is scaled alike
            tensor.scale_(factor)

    def dense(self, name: str) -> Float[Tensor, "runs n_v *shape"]:
        """All directions of one tensor."""
        return self.tensors[name].dense()

    def one(self, subnetwork: int) -> dict[str, Tensor]:
        """One direction, dense: by tensor (runs, *shape)."""
        return {name: Directions.of(_taken(tensor, subnetwork)).tensors[""].dense()[:, 0].detach() for name, tensor in self.tensors.items()}


def _taken(tensor: LowRankTensor, place: int) -> dict[str, Tensor]:
    return {f"/{part}": factor[:, place : place + 1] for part, factor in tensor.factors.items()}


def _noise(shape: Shape, generators: Sequence[torch.Generator]) -> Tensor:
    return torch.stack([torch.randn(shape, generator=generator) for generator in generators])
