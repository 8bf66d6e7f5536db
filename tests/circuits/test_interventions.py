"""Interventions on a model whose circuits are apart by construction: a diagonal linear map."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from unmerge.circuits.decompose import decompose
from unmerge.circuits.directions import CP, Directions
from unmerge.circuits.interventions import SHARE, effect, joint, switched_off
from unmerge.circuits.landscape import Landscape
from unmerge.circuits.settings import Settings
from unmerge.circuits.subnetworks import Subnetworks


def diagonal() -> tuple[Landscape, Tensor]:
    model = nn.Linear(3, 3, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.diag(torch.tensor([1.0, 2.0, 3.0])))
    return Landscape.of(model), torch.rand(50, 3, generator=torch.Generator().manual_seed(0))


def own(x: Tensor, output: int) -> Tensor:
    mask = torch.zeros_like(x, dtype=torch.bool)
    mask[:, output] = True
    return mask


def entry(row: int, column: int) -> dict[str, Tensor]:
    direction = torch.zeros(1, 3, 3)
    direction[0, row, column] = 1
    return {"weight": direction}


def test_own_outputs_move_by_half_of_their_range() -> None:
    landscape, x = diagonal()
    mixed = {"weight": entry(1, 1)["weight"] + 0.1 * entry(0, 0)["weight"]}
    seen = effect(landscape, mixed, x, own(x, 1))
    before = landscape.outputs(x[None])[0]
    assert seen.own == pytest.approx(float(SHARE * (before[:, 1].max() - before[:, 1].min())), rel=1e-2)
    # the others: output 0 moves by a tenth of the step, output 2 not at all
    assert seen.others == pytest.approx(0.1 * abs(seen.step) * float(x[:, 0].mean()) / 2, rel=1e-3)
    assert seen.selectivity == pytest.approx(seen.own / seen.others)


def test_a_direction_that_moves_nothing_of_its_own_has_no_selectivity() -> None:
    landscape, x = diagonal()
    assert effect(landscape, entry(0, 0), x, own(x, 1)).selectivity == 0


def test_only_what_is_named_moves() -> None:
    landscape, x = diagonal()
    assert effect(landscape, entry(1, 1), x, own(x, 1), []).step == 0


def test_a_linear_computation_is_switched_off() -> None:
    landscape, x = diagonal()
    seen = switched_off(landscape, entry(1, 1), x, own(x, 1))
    assert seen["left"] < 0.05
    assert seen["step"] == pytest.approx(-2, abs=0.1)
    assert seen["others"] == 0


def test_two_moves_of_a_linear_map_add_up() -> None:
    landscape, x = diagonal()
    factors = (torch.eye(3)[None, :, None], torch.eye(3)[None, :, None])
    settings = Settings(subnetworks=3)
    found = Subnetworks(Directions({"weight": CP(factors)}), Directions({"weight": CP(factors)}), settings, torch.zeros(0, 1))
    seen = joint(landscape, found, x, own(x, 0) | own(x, 2), {0: 0.5, 2: -0.3})
    assert seen["apart"] == pytest.approx(0, abs=1e-5)
    assert seen["selectivity"] > 1e6


def test_pairs_are_compared_with_what_is_given() -> None:
    """With every sample its own reference there is no gradient; with another one there is."""
    landscape, x = diagonal()
    settings = Settings(subnetworks=2, epochs=1, batch=10)
    pairs = landscape.outputs(x[None]) + torch.tensor([1.0, 0, 0])
    found = decompose(landscape, x[None], settings.model_copy(update={"epochs": 30, "share": 0.5, "learning_rate": 0.1}), pairs=pairs)
    # only output 0 is asked to move: every gradient lies in the first row
    rows = found.decoder.dense("weight")[0].square().sum(2)
    assert float(rows[:, 0].max()) > 0.95
