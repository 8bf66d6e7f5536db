"""Which property a toy model has, measured: more features than dimensions, circuits that share parameters, circuits of high rank.

The fourth property of the source, a complex landscape, is measured by an intervention: how much of its output is left when a
subnetwork is moved to where that is least (``unmerge.circuits.interventions.switched_off``).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.func import jacrev, vmap

from unmerge.circuits.landscape import Landscape
from unmerge_lab.circuits.toys import Toy

#: a feature is represented when the model's answer to it is this share of what it is to answer
ANSWERED = 0.5
#: a direction of a circuit's map counts when its singular value is this share of the largest
COUNTS = 0.1
#: samples of each circuit
SAMPLES = 64


def properties(toy: Toy, landscape: Landscape, seed: int) -> dict[str, float]:
    """The properties of one model.

    Args:
        toy: what it is.
        landscape: of the model.
        seed: it was trained with.

    Returns:
        ``features_per_dimension``: features that it answers to, over the width of its narrowest layer;
        ``overlap``: mean cosine of two circuits' squared gradients, by parameter: 0 where circuits share none;
        ``rank``: of a circuit's map from its inputs to its outputs at one sample, the mean over circuits and samples.
    """
    circuits = toy.inputs // toy.group
    weights = [tensor for tensor in landscape.parameters.values() if tensor.dim() == 3]
    narrowest = min(min(tensor.shape[1:]) for tensor in weights)
    features = torch.eye(circuits).repeat_interleave(toy.group, 1) if toy.shared else torch.eye(toy.inputs)
    wanted = toy.target(features, torch.Generator().manual_seed(seed))
    answers = landscape.outputs(torch.cat([torch.zeros(1, toy.inputs), features])[None])[0]
    answered = (answers[1:] - answers[:1]).norm(dim=1) >= ANSWERED * wanted.norm(dim=1)
    alone = [_alone(toy, circuit) for circuit in range(circuits)]
    profiles = torch.stack([_profile(landscape, x) for x in alone])
    cosines = torch.nn.functional.normalize(profiles, dim=1) @ torch.nn.functional.normalize(profiles, dim=1).T
    return {
        "features_per_dimension": float(answered.sum()) / narrowest,
        "overlap": float((cosines.sum() - cosines.trace()) / (circuits * (circuits - 1))),
        "rank": sum(_rank(toy, landscape, circuit, x) for circuit, x in enumerate(alone)) / circuits,
    }


def _alone(toy: Toy, circuit: int) -> Tensor:
    """Inputs with one circuit active."""
    x = torch.zeros(SAMPLES, toy.inputs)
    generator = torch.Generator().manual_seed(circuit)
    values = torch.rand(SAMPLES, 1 if toy.shared else toy.group, generator=generator)
    x[:, circuit * toy.group : (circuit + 1) * toy.group] = toy.low + (1 - toy.low) * values
    return x


def _profile(landscape: Landscape, x: Tensor) -> Tensor:
    """The mean squared gradient of each parameter, against the answer to nothing."""
    reference = landscape.outputs(torch.zeros_like(x)[None])
    return torch.cat([gradient[0].detach().square().mean(0).flatten() for gradient in landscape.gradients(x[None], reference).values()])


def _rank(toy: Toy, landscape: Landscape, circuit: int, x: Tensor) -> float:
    own = slice(circuit * toy.group, (circuit + 1) * toy.group)
    tensors = {name: tensor[0] for name, tensor in {**landscape.parameters, **landscape.fixed}.items()}
    maps = vmap(jacrev(lambda sample: landscape.call(tensors, sample)))(x).detach()[:, :, own]
    values = torch.linalg.svdvals(maps if toy.mixes else maps[:, own])
    return float((values >= COUNTS * values[:, :1]).sum(1).double().mean())
