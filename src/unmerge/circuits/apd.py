"""Attribution-based parameter decomposition, the nearest relative, on an autoencoder.

Braun et al., "Interpretability in Parameter Space: Minimizing Mechanistic Description Length with Attribution-based Parameter
Decomposition", 2025 (arXiv 2501.14926). Parameter components P_1 .. P_C, each of rank 1 here, that

    add up to the weights                ||W - sum_c P_c||^2                                    (faithful)
    answer as the model does, a few at a time   ||f(x, W) - f(x, sum over the top k of P_c)||^2       (minimal)

with the top k by attribution sum_o (<grad_W f_o, P_c>)^2, over the batch. Its third term, the Schatten norm, asks for low rank;
components that are of rank 1 by construction have no need of it. A small implementation of the idea for comparison, with
weights of the terms of our own, not the authors' code.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import jacrev, vmap

from unmerge.circuits.landscape import Landscape
from unmerge.circuits.top_k import batch_top_k
from unmerge.circuits.toys import BIAS, DECODER, ENCODER

_FAITHFUL, _RATE = 10.0, 0.01


def apd(landscape: Landscape, x: Float[Tensor, "samples inputs"], count: int, share: float, steps: int = 2000, seed: int = 0) -> dict[str, Tensor]:
    """The components of one autoencoder's two matrices: by tensor (count, *its shape). The bias belongs to all.

    Args:
        landscape: of one model.
        x: samples.
        count: components.
        share: of the components that answer, over a batch.
        steps: of Adam, on batches of 64.
        seed: of start and batches.
    """
    generator = torch.Generator().manual_seed(seed)
    weights = {name: landscape.parameters[name][0] for name in (ENCODER, DECODER)}
    bias = landscape.parameters[BIAS][0]
    scale = {name: float(weight.norm()) ** 0.5 / count**0.25 for name, weight in weights.items()}
    factors = {
        name: [
            (torch.nn.functional.normalize(torch.randn(count, size, generator=generator), dim=1) * scale[name]).requires_grad_()
            for size in weight.shape
        ]
        for name, weight in weights.items()
    }
    jacobian = vmap(jacrev(lambda own, sample: landscape.call({**own, BIAS: bias}, sample)), (None, 0))
    goals = landscape.outputs(x[None])[0]
    optimizer = torch.optim.Adam([factor for pair in factors.values() for factor in pair], lr=_RATE, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    slopes = {name: tensor.detach() for name, tensor in jacobian(weights, x).items()}
    for _ in range(steps):
        places = torch.randint(len(x), (64,), generator=generator)
        parts = {name: left[:, :, None] * right[:, None, :] for name, (left, right) in factors.items()}
        unfaithful = torch.stack([(weights[name] - part.sum(0)).square().sum() for name, part in parts.items()]).sum()
        along = torch.stack([torch.einsum("boij,cij->boc", slopes[name][places], part) for name, part in parts.items()]).sum(0)
        chosen = (batch_top_k(along.detach().square().sum(1)[None], share)[0] != 0).float()
        encoder, decoder = (torch.einsum("bc,cij->bij", chosen, parts[name]) for name in (ENCODER, DECODER))
        answers = torch.relu((decoder @ (encoder @ x[places, :, None]))[..., 0] + bias)
        loss = _FAITHFUL * unfaithful / count + (answers - goals[places]).square().sum(1).mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    return {name: (left[:, :, None] * right[:, None, :]).detach() for name, (left, right) in factors.items()}
