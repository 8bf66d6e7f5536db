"""Matching against circuits that are known by construction."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from unmerge_lab.circuits.matching import cosine_matrix, feature_directions, feature_weights, match, mmcs, r_squared
from unmerge_lab.circuits.toys import DECODER, ENCODER, Autoencoder


def circuits(count: int = 5) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    model = Autoencoder(count, 2)
    return feature_directions(model.encoder.weight.detach() + 0.3 * torch.randn(2, count), model.decoder.weight.detach())


def test_a_permutation_with_signs_and_scales_is_undone() -> None:
    truth = circuits()
    order, scale = torch.tensor([3, 0, 4, 1, 2]), torch.tensor([-2.0, 1, -0.1, 5, 1])[:, None, None]
    matched = match({name: tensor[order] * scale for name, tensor in truth.items()}, truth)
    assert matched.subnetwork[order].tolist() == [0, 1, 2, 3, 4]
    torch.testing.assert_close(matched.least, torch.ones(5))


def test_two_subnetworks_of_one_circuit_count_once() -> None:
    truth = circuits()
    found = {name: torch.cat([tensor[:4], tensor[:1]]) for name, tensor in truth.items()}
    assert min(match(found, truth).least.tolist()) == 0
    assert mmcs(found, truth) < 1


def test_fewer_subnetworks_than_circuits() -> None:
    truth = circuits()
    matched = match({name: tensor[:3] for name, tensor in truth.items()}, truth)
    assert matched.subnetwork.tolist() == [0, 1, 2, -1, -1]
    assert matched.least.tolist()[3:] == [0, 0]


def test_the_least_cosine_is_that_of_the_worse_matrix() -> None:
    truth = circuits()
    found = dict(truth) | {DECODER: truth[DECODER] + 0.5 * truth[DECODER].roll(1, 0)}
    matched = match(found, truth)
    torch.testing.assert_close(matched.cosines[ENCODER], torch.ones(5))
    assert torch.equal(matched.least, matched.cosines[DECODER])
    assert (matched.least < 0.99).all()


def test_feature_directions_are_the_gradients_of_the_outputs() -> None:
    """At an input of one active feature, its own output moves along its direction, up to its scale in each matrix."""
    torch.manual_seed(0)
    model = Autoencoder(5, 2)
    with torch.no_grad():
        model.decoder.weight.add_(0.2 * torch.randn(5, 2))
        model.decoder.bias.fill_(5.0)  # every ReLU is open
    encoder, decoder = model.encoder.weight, model.decoder.weight
    directions, weights = feature_directions(encoder, decoder), feature_weights(encoder, decoder)
    for feature in range(5):
        gradients = torch.autograd.grad(model(torch.eye(5))[feature, feature], [encoder, decoder])
        for name, gradient in zip((ENCODER, DECODER), gradients, strict=True):
            assert float(cosine_matrix(gradient[None], directions[name][feature : feature + 1])) == pytest.approx(1, abs=1e-5)
    torch.testing.assert_close(weights[ENCODER].sum(0), encoder)
    torch.testing.assert_close(weights[DECODER].sum(0), decoder)


def test_r_squared_has_neither_sign_nor_scale() -> None:
    values = np.array([1.0, 2, 4, 3])
    assert r_squared(values, -3 * values + 1) == pytest.approx(1)
    assert r_squared(values, np.ones(4)) == 0
