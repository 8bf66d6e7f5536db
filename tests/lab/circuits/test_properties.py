"""Properties of models whose properties are known, and APD where there is one component."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from unmerge.circuits.landscape import Landscape
from unmerge_lab.circuits.apd import RECIPES, apd
from unmerge_lab.circuits.properties import properties
from unmerge_lab.circuits.toys import DECODER, ENCODER, TOYS, Autoencoder


def made(encoder: torch.Tensor) -> Landscape:
    model = Autoencoder(encoder.shape[1], encoder.shape[0])
    model.encoder.weight.data = encoder
    model.decoder.weight.data = encoder.T.clone()
    return Landscape.of(model)


def test_a_feature_a_dimension_shares_nothing() -> None:
    of = properties(replace(TOYS["tms"], inputs=4), made(torch.eye(4)), 0)
    assert of == {"features_per_dimension": 1.0, "overlap": pytest.approx(0.0, abs=1e-6), "rank": 1.0}


def test_features_that_are_not_answered_do_not_count() -> None:
    encoder = torch.eye(4)
    encoder[3] = 0
    assert properties(replace(TOYS["tms"], inputs=4), made(encoder), 0)["features_per_dimension"] == 0.75


def test_two_features_in_one_dimension() -> None:
    of = properties(replace(TOYS["tms"], inputs=2), made(torch.ones(1, 2)), 0)
    assert of["features_per_dimension"] == 2.0
    assert of["overlap"] > 0.1, "each moves the other's output"


def test_the_rank_of_a_group() -> None:
    toy = replace(TOYS["high-rank"], inputs=6, group=3)
    assert properties(toy, made(torch.eye(6)), 0)["rank"] == 3.0
    flat = torch.zeros(2, 6)
    flat[0, :3] = flat[1, 3:] = 1
    of = properties(toy, made(flat), 0)
    assert of["rank"] == 1.0
    assert of["overlap"] == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("name", RECIPES)
def test_one_component_of_apd_is_the_weights(name: str) -> None:
    """Nothing else is faithful, where the weights have rank 1 in both matrices."""
    landscape = made(torch.tensor([[0.9, 0.5, 0.2]]))
    x = torch.rand(64, 3, generator=torch.Generator().manual_seed(0))
    parts = apd(landscape, x, 1, replace(RECIPES[name], steps=400, share=1.0, faithful=30.0, rate=0.03))
    for tensor in (ENCODER, DECODER):
        torch.testing.assert_close(parts[tensor][0], landscape.parameters[tensor][0], atol=0.05, rtol=0.05)
