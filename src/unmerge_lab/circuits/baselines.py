"""What simpler methods find in the same gradients: directions in all parameters, without structure.

Each takes the gradients of one model, written out, (samples, n_w), and gives ``count`` directions of unit norm.

- random: normal noise;
- svd: the leading right singular vectors, the best that any linear map of rank ``count`` can do without sparsity;
- nmf: of the squared gradients, the diagonals of per-example Fisher matrices, which is the idea of NPEFF (Matena and Raffel
  2023, arXiv 2310.04649); its directions have no signs, and are compared with the circuits' absolute values;
- clusters: k-means of unit gradients; a gradient and its negative are one, so the sign is that of the first principal axis.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from unmerge.circuits.landscape import Landscape
from unmerge.circuits.references import random_in_batch
from unmerge_lab.circuits.matching import Match, feature_directions, match, mmcs
from unmerge_lab.circuits.toys import DECODER, ENCODER

Directions = Float[Tensor, "count weights"]


def random_directions(gradients: Float[Tensor, "samples weights"], count: int, seed: int) -> Directions:
    """Normal noise."""
    return _unit(torch.randn(count, gradients.shape[1], generator=torch.Generator().manual_seed(seed)))


def svd(gradients: Float[Tensor, "samples weights"], count: int, _: int = 0) -> Directions:
    """The leading right singular vectors."""
    right: Tensor = torch.linalg.svd(gradients, full_matrices=False)[2][:count]
    return right


def nmf(gradients: Float[Tensor, "samples weights"], count: int, seed: int) -> Directions:
    """Square roots of the parts of the squared gradients."""
    from sklearn.decomposition import NMF

    fishers = gradients.square().numpy()
    parts = NMF(count, init="nndsvda", random_state=seed, max_iter=500, tol=1e-3).fit(fishers / fishers.mean()).components_
    return _unit(torch.tensor(np.sqrt(parts), dtype=torch.float32))


def clusters(gradients: Float[Tensor, "samples weights"], count: int, seed: int) -> Directions:
    """Centres of unit gradients."""
    from sklearn.cluster import KMeans

    kept = gradients[gradients.norm(dim=1) > 0]
    unit = _unit(kept) * (kept @ svd(gradients, 1)[0]).sign()[:, None]
    return _unit(torch.tensor(KMeans(count, n_init=4, random_state=seed).fit(unit.numpy()).cluster_centers_))


BASELINES: dict[str, Callable[[Tensor, int, int], Tensor]] = {"random": random_directions, "svd": svd, "nmf": nmf, "clusters": clusters}


def compare(landscape: Landscape, x: Float[Tensor, "samples inputs"], count: int, seed: int) -> dict[str, dict[str, float]]:
    """Every baseline on one autoencoder: circuits matched at .97 on both matrices, the least cosine, and MMCS."""
    outputs = landscape.outputs(x[None])
    references = random_in_batch(outputs.unsqueeze(1), torch.Generator().manual_seed(seed)).squeeze(1)
    gradients = {name: tensor[0].detach() for name, tensor in landscape.gradients(x[None], references).items()}
    flat = torch.cat([tensor.flatten(1) for tensor in gradients.values()], 1)
    truth = feature_directions(landscape.parameters[ENCODER][0], landscape.parameters[DECODER][0])
    result = {}
    for name, method in BASELINES.items():
        directions = method(flat, count, seed)
        found = _split(directions, {key: tensor.shape[1:] for key, tensor in gradients.items()})
        circuits = {key: tensor.abs() for key, tensor in truth.items()} if name == "nmf" else truth
        matched = match(found, circuits)
        result[name] = row_of(matched, mmcs(found, circuits))
    return result


def row_of(matched: Match, likeness: float) -> dict[str, float]:
    """A match in three numbers."""
    return {"matched_97": float((matched.least >= 0.97).sum()), "least_cosine": float(matched.least.min()), "mmcs": likeness}


def _split(directions: Directions, shapes: dict[str, torch.Size]) -> dict[str, Tensor]:
    parts = torch.split(directions, [math.prod(shape) for shape in shapes.values()], 1)
    return {name: part.reshape(len(directions), *shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}


def _unit(rows: Tensor) -> Tensor:
    result: Tensor = torch.nn.functional.normalize(rows, dim=1)
    return result
