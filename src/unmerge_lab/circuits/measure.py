"""What came out of a decomposition of toy models, in numbers: one dictionary for each run.

Everything that is read here is read from the decoder's directions, the subnetworks, unless it says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from unmerge.circuits.directions import Directions
from unmerge.circuits.divergences import published_moving_reference
from unmerge.circuits.landscape import Landscape, Tensors
from unmerge.circuits.references import random_in_batch
from unmerge.circuits.subnetworks import Subnetworks
from unmerge_lab.circuits.matching import feature_directions, feature_weights, match, mmcs, r_squared
from unmerge_lab.circuits.toys import DECODER, ENCODER, Toy, mixing_matrix

#: a subnetwork that is active on a smaller share of the samples is spare
SPARE = 0.01
#: a group is recovered when a subnetwork has this share of its squared norm in the group's part of both matrices
INSIDE = 0.9
#: shares of the coefficients that are kept, for a curve over k
SHARES = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5)

Row = dict[str, Any]


@dataclass(frozen=True)
class _Case:
    """The models: what they are, their seeds, and how they answer."""

    toy: Toy
    seeds: list[int]
    landscape: Landscape


def measure(toy: Toy, kind: str, seeds: list[int], landscape: Landscape, x: Tensor, found: Subnetworks) -> list[Row]:
    """One row for each run.

    Args:
        toy: what the models are.
        kind: its name.
        seeds: of the models.
        landscape: of the models.
        x: samples, (runs, samples, inputs).
        found: the subnetworks.
    """
    reconstruction = found.reconstruct(landscape, x)
    case, count = _Case(toy, seeds, landscape), found.settings.subnetworks
    floors = floor(landscape, x, count)
    published = floor(replace(landscape, divergence=published_moving_reference), x, count)
    rows = []
    for run, seed in enumerate(seeds):
        active = reconstruction.active[run]
        row: Row = {
            "seed": seed,
            "reconstruction": float(reconstruction.error[run]),
            "floor": floors[run],
            "floor_published": published[run],
            "active": active.tolist(),
            "spare": int((active < SPARE).sum()),
            "encoder_decoder_cosine": _sides(found, run),
        }
        rows.append(row | _KINDS[kind](case, found, run))
    return rows


def floor(landscape: Landscape, x: Tensor, count: int, seed: int = 0) -> list[float]:
    """What any ``count`` directions leave of the gradients of each run, without sparsity and of whatever rank: no decomposition is below.

    1 - (the largest ``count`` squared singular values of the gradients, written out, over all of them), against random references.
    """
    gradients = pair_gradients(landscape, x, seed)
    squares = torch.linalg.svdvals(torch.cat([part.flatten(2) for part in gradients.values()], 2)).double().square()
    left: list[float] = (1 - squares[:, :count].sum(1) / squares.sum(1)).tolist()
    return left


def pair_gradients(landscape: Landscape, x: Tensor, seed: int = 0) -> Tensors:
    """The gradient of every sample against another one at random: by tensor, (runs, samples, *its shape)."""
    references = random_in_batch(landscape.outputs(x).unsqueeze(1), torch.Generator().manual_seed(seed)).squeeze(1)
    return {name: gradient.detach() for name, gradient in landscape.gradients(x, references).items()}


def _sides(found: Subnetworks, run: int) -> list[float]:
    """The cosine of V_in with V_out, by subnetwork."""
    one, two = (_joined(side, run) for side in (found.encoder, found.decoder))
    cosines: list[float] = torch.nn.functional.cosine_similarity(one, two).tolist()
    return cosines


def _joined(side: Directions, run: int) -> Tensor:
    """(n_v, n_w): every direction of a run written out, for toy models."""
    return torch.cat([part.dense()[run].flatten(1) for part in side.tensors.values()], 1).detach()


def _matrices(case: _Case, found: Subnetworks, run: int) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    own = {name: found.decoder.dense(name)[run].detach() for name in (ENCODER, DECODER)}
    return case.landscape.parameters[ENCODER][run], case.landscape.parameters[DECODER][run], own


def _features(case: _Case, found: Subnetworks, run: int) -> Row:
    """One circuit a feature."""
    encoder, decoder, own = _matrices(case, found, run)
    directions, weights = feature_directions(encoder, decoder), feature_weights(encoder, decoder)
    matched = match(own, directions)
    return {
        "assigned": matched.subnetwork.tolist(),
        "cosines": {name: values.tolist() for name, values in matched.cosines.items()},
        "least_cosine": float(matched.least.min()),
        "least_cosine_weights": float(match(own, weights).least.min()),
        "matched_97": int((matched.least >= 0.97).sum()),
        "matched_95": int((matched.least >= 0.95).sum()),
        "mmcs": mmcs(own, directions),
        "mmcs_weights": mmcs(own, weights),
    }


def _mixture(case: _Case, found: Subnetworks, run: int) -> Row:
    """One circuit an input: column j of the map W_dec W_enc.

    Read back from a subnetwork as (its decoder part) (its encoder part), along the largest column of its encoder part.
    """
    encoder, decoder, own = _matrices(case, found, run)
    model_map, truth = decoder @ encoder, mixing_matrix(case.toy.inputs, torch.Generator().manual_seed(case.seeds[run]))
    columns = own[ENCODER].square().sum(1)
    inside, feature = (columns / columns.sum(1, keepdim=True)).max(1)
    read = torch.stack([(own[DECODER][k] @ own[ENCODER][k])[:, int(j)] for k, j in enumerate(feature)])
    active = [k for k in range(len(feature)) if float(columns[k].sum()) > 0]

    def fits(to: Tensor) -> list[float]:
        return [r_squared(read[k].double().numpy(), to[:, int(feature[k])].double().numpy()) for k in active]

    left, values, right = torch.linalg.svd(truth)
    hidden = encoder.shape[0]
    ceiling = (left[:, :hidden] * values[:hidden]) @ right[:hidden]
    # of several subnetworks of one input the one that lies in its column most stands for it
    best = {int(j): k for k, j in sorted(enumerate(feature), key=lambda pair: float(inside[pair[0]]))}
    return {
        "features": len(best),
        "feature": feature.tolist(),
        "inside": inside.tolist(),
        "r2_model": fits(model_map),
        "r2_truth": fits(truth),
        "r2_model_by_feature": [fits(model_map)[active.index(k)] for k in best.values()],
        "ceiling": r_squared(ceiling.double().flatten().numpy(), truth.double().flatten().numpy()),
        "model_against_truth": r_squared(model_map.double().flatten().numpy(), truth.double().flatten().numpy()),
        "read": [
            [truth[i, int(feature[k])].item(), model_map[i, int(feature[k])].item(), _scaled(read[k], model_map[:, int(feature[k])])[i].item()]
            for k in best.values()
            for i in range(case.toy.inputs)
        ],
    }


def _scaled(direction: Tensor, to: Tensor) -> Tensor:
    """The direction at the scale and sign that fit best."""
    result: Tensor = direction * (direction @ to) / (direction @ direction).clamp_min(1e-20)
    return result


def _groups(case: _Case, found: Subnetworks, run: int) -> Row:
    """One circuit a group of inputs."""
    _, _, own = _matrices(case, found, run)
    shares = []
    for tensor, axis in ((own[ENCODER], 1), (own[DECODER], 2)):
        by_feature = tensor.square().sum(axis)
        by_group = by_feature.view(len(by_feature), -1, case.toy.group).sum(2)
        shares.append(by_group / by_group.sum(1, keepdim=True).clamp_min(1e-20))
    inside = torch.minimum(*shares)
    return {
        "groups": case.toy.inputs // case.toy.group,
        "recovered": int((inside.max(0).values >= INSIDE).sum()),
        "inside": inside.max(0).values.tolist(),
        "of_group": inside.argmax(1).tolist(),
        "standing_for": inside.argmax(0).tolist(),
    }


def _inputs(_: _Case, found: Subnetworks, run: int) -> Row:
    """One circuit an input, by the first layer's column where the subnetwork has the most of its squared norm there."""
    columns = found.decoder.dense("0.weight")[run].detach().square().sum(1)
    inside, feature = (columns / columns.sum(1, keepdim=True).clamp_min(1e-20)).max(1)
    return {"features": len(set(feature.tolist())), "feature": feature.tolist(), "inside": inside.tolist()}


_KINDS: dict[str, Callable[[_Case, Subnetworks, int], Row]] = {
    "tms": _features,
    "parallel": _features,
    "tmcs": _mixture,
    "high-rank": _groups,
    "high-rank-shared": _groups,
    "square": _inputs,
    "square-5": _inputs,
    "square-early": _inputs,
    "square-5-early": _inputs,
}


def pictures(found: Subnetworks) -> dict[str, dict[str, list[Any]]]:
    """The directions of the first run written out, of either side and by tensor, for figures: four decimals."""
    sides = {"encoder": found.encoder, "decoder": found.decoder}
    return {
        side: {
            name: [[round(value, 4) for value in row] for row in part.dense()[0].detach().flatten(1).tolist()] for name, part in own.tensors.items()
        }
        for side, own in sides.items()
    }


def over_shares(landscape: Landscape, x: Tensor, found: Subnetworks) -> dict[str, list[float]]:
    """The reconstruction of every run with more or fewer coefficients kept than it was trained with, by share."""
    return {str(share): found.reconstruct(landscape, x, share=share).error.tolist() for share in SHARES}
