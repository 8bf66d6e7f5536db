"""Attribution-based parameter decomposition, the nearest relative, on an autoencoder.

Braun et al., "Interpretability in Parameter Space: Minimizing Mechanistic Description Length with Attribution-based Parameter
Decomposition", 2025 (arXiv 2501.14926). Parameter components P_1 .. P_C that

    add up to the weights                       ||W - sum_c P_c||^2                               (faithful)
    answer as the model does, a few at a time   ||f(x, W) - f(x, sum over the top k of P_c)||^2   (minimal)
    are of low rank                             sum over the top k of sum_i s_i(P_c)^p, p = .9    (simple)

with the top k by attribution sum_o (<grad_W f_o, P_c>)^2, over the batch. A small implementation of the idea for comparison, with
weights of the terms of our own, not the authors' code; ``RECIPES`` holds the three that were tried.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import jacrev, vmap

from unmerge.circuits.landscape import Landscape
from unmerge.circuits.top_k import batch_top_k
from unmerge_lab.circuits.toys import BIAS, DECODER, ENCODER

#: power of the singular values; keeps its slope finite at zero
_POWER, _TINY = 0.9, 1e-6
_BATCH = 256


@dataclass(frozen=True)
class Recipe:
    """How to weigh the terms.

    Attributes:
        outer: components are outer products, of rank 1 by construction; else matrices.
        simple: weight of the third term.
        faithful: weight of the first.
        rate: Adam's, falling as a cosine.
        steps: of Adam.
        share: of the components that answer, over a batch.
    """

    outer: bool
    simple: float
    faithful: float = 1.0
    rate: float = 0.03
    steps: int = 3000
    share: float = 0.22


RECIPES = {"apd, rank 1": Recipe(True, 0.0), "apd, Schatten .05": Recipe(False, 0.05), "apd, Schatten .1, slower": Recipe(False, 0.1, rate=0.01)}


def apd(landscape: Landscape, x: Float[Tensor, "samples inputs"], count: int, recipe: Recipe, seed: int = 0) -> dict[str, Tensor]:
    """The components of one autoencoder's two matrices: by tensor (count, *its shape). The bias belongs to all.

    Args:
        landscape: of one model.
        x: samples.
        count: components.
        recipe: the weights of the terms.
        seed: of start and batches.
    """
    generator = torch.Generator().manual_seed(seed)
    weights = {name: landscape.parameters[name][0] for name in (ENCODER, DECODER)}
    bias = landscape.parameters[BIAS][0]
    factors = {name: _start(weight, count, recipe.outer, generator) for name, weight in weights.items()}
    jacobian = vmap(jacrev(lambda own, sample: landscape.call({**own, BIAS: bias}, sample)), (None, 0))
    goals = landscape.outputs(x[None])[0]
    optimizer = torch.optim.Adam([factor for own in factors.values() for factor in own], lr=recipe.rate, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, recipe.steps)
    slopes = {name: tensor.detach() for name, tensor in jacobian(weights, x).items()}
    for _ in range(recipe.steps):
        places = torch.randint(len(x), (_BATCH,), generator=generator)
        parts = {name: _product(own) for name, own in factors.items()}
        unfaithful = torch.stack([(weights[name] - part.sum(0)).square().sum() for name, part in parts.items()]).sum()
        along = torch.stack([torch.einsum("boij,cij->boc", slopes[name][places], part.detach()) for name, part in parts.items()]).sum(0)
        chosen = (batch_top_k(along.square().sum(1)[None], recipe.share)[0] != 0).float()
        encoder, decoder = (torch.einsum("bc,cij->bij", chosen, parts[name]) for name in (ENCODER, DECODER))
        answers = torch.relu((decoder @ (encoder @ x[places, :, None]))[..., 0] + bias)
        loss = recipe.faithful * unfaithful + (answers - goals[places]).square().sum(1).mean()
        if recipe.simple:
            values = torch.cat([torch.linalg.svdvals(part) for part in parts.values()], 1)
            loss = loss + recipe.simple * ((values + _TINY) ** _POWER).sum(1) @ chosen.mean(0)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    return {name: _product(own).detach() for name, own in factors.items()}


def _start(weight: Tensor, count: int, outer: bool, generator: torch.Generator) -> list[Tensor]:
    """Normal noise; the components' sum is about as large as the weights."""
    size = float(weight.norm()) / count**0.5
    if not outer:
        return [(torch.randn(count, *weight.shape, generator=generator) * size / weight.numel() ** 0.5).requires_grad_()]
    unit = [torch.nn.functional.normalize(torch.randn(count, length, generator=generator), dim=1) for length in weight.shape]
    return [(factor * size**0.5).requires_grad_() for factor in unit]


def _product(factors: list[Tensor]) -> Tensor:
    return factors[0][:, :, None] * factors[1][:, None, :] if len(factors) == 2 else factors[0]
