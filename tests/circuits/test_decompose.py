"""The decomposition: its loss against the same written out, seeds, resuming, and what it finds where the answer is known."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from unmerge.circuits.decompose import decompose
from unmerge.circuits.l3d import L3D
from unmerge.circuits.landscape import Landscape, squared_norms
from unmerge.circuits.settings import Settings
from unmerge.circuits.subnetworks import Subnetworks
from unmerge.circuits.top_k import batch_top_k, squared_error
from unmerge.core.errors import BadInput
from unmerge_lab.circuits.matching import cosine_matrix
from unmerge_lab.circuits.measure import floor, pair_gradients

SETTINGS = Settings(subnetworks=4, epochs=6, batch=16, chunk=32)


def test_batch_top_k_keeps_the_largest_of_the_whole_batch() -> None:
    torch.manual_seed(0)
    coefficients = torch.randn(2, 8, 5)
    kept = batch_top_k(coefficients, 0.1)
    for run in range(2):
        largest = coefficients[run].abs().flatten().topk(4).indices
        assert set(kept[run].flatten().nonzero()[:, 0].tolist()) == set(largest.tolist())
    assert torch.equal(kept[kept != 0], coefficients[kept != 0])
    assert (batch_top_k(coefficients, 1e-6) != 0).sum() == 2, "at least one of each run"
    assert not batch_top_k(torch.zeros(1, 4, 2), 0.5).any()


def test_the_loss_is_that_of_dense_matrices(landscape: Landscape, x: Tensor, found: Subnetworks) -> None:
    gradients = landscape.gradients(x, landscape.outputs(x.roll(1, 1)))
    names = list(gradients)
    g = torch.cat([gradients[name].flatten(2) for name in names], 2)
    v_in, v_out = (torch.cat([side.dense(name).flatten(2) for name in names], 2) for side in (found.encoder, found.decoder))
    kept = batch_top_k(g @ v_in.mT, 0.1)
    torch.testing.assert_close(found.encoder.project(gradients), g @ v_in.mT)
    expected = (g - kept @ v_out).square().sum((1, 2))
    torch.testing.assert_close(squared_error(gradients, squared_norms(gradients), kept, found.decoder), expected)


def test_it_learns_and_directions_keep_their_norm(landscape: Landscape, x: Tensor, found: Subnetworks) -> None:
    torch.testing.assert_close(found.decoder.norms(), torch.ones(2, 4))
    assert (decompose(landscape, x, SETTINGS.model_copy(update={"epochs": 12})).losses[-1] < found.losses[0] - 0.05).all()


def test_a_run_alone_is_as_among_others(landscape: Landscape, x: Tensor, found: Subnetworks) -> None:
    second = decompose(landscape.run(1), x[1:], SETTINGS.model_copy(update={"seed": 1}))
    torch.testing.assert_close(second.decoder.dense("encoder.weight")[0], found.decoder.dense("encoder.weight")[1], atol=1e-4, rtol=1e-3)


def test_of_several_starts_the_best_is_kept(landscape: Landscape, x: Tensor, found: Subnetworks) -> None:
    several = decompose(landscape, x, SETTINGS.model_copy(update={"starts": 3}))
    assert several.losses.shape == found.losses.shape
    last = several.losses[-1]
    assert (last <= found.losses[-1] + 1e-5).all()
    assert (last < found.losses[-1] - 1e-3).any(), "one of two more starts is better in one of two runs"
    alone = decompose(landscape.run(1), x[1:], SETTINGS.model_copy(update={"starts": 3, "seed": 1}))
    torch.testing.assert_close(alone.losses[:, 0], several.losses[:, 1], atol=1e-4, rtol=1e-3)


def test_no_decomposition_is_below_the_floor(landscape: Landscape, x: Tensor, found: Subnetworks) -> None:
    gradients = pair_gradients(landscape, x, 0)
    flat = torch.cat([part.flatten(2) for part in gradients.values()], 2)
    basis = torch.linalg.svd(flat[0], full_matrices=False)[2][:4]
    left = float((flat[0] - flat[0] @ basis.T @ basis).square().sum() / flat[0].square().sum())
    floors = floor(landscape, x, 4)
    assert floors[0] == pytest.approx(left, rel=1e-4)
    kept = found.encoder.project(gradients)
    reached = squared_error(gradients, squared_norms(gradients), kept, found.decoder) / squared_norms(gradients).sum(1)
    assert all(value >= least for value, least in zip(reached.tolist(), floors, strict=True))
    assert floor(landscape, x, 25) == pytest.approx([0.0, 0.0], abs=1e-6)


def test_the_same_seed_gives_the_same_and_another_one_another(landscape: Landscape, x: Tensor, found: Subnetworks) -> None:
    again = decompose(landscape, x, SETTINGS)
    assert torch.equal(again.losses, found.losses)
    assert not torch.equal(decompose(landscape, x, SETTINGS.model_copy(update={"seed": 5})).losses, found.losses)


def test_an_interrupted_run_goes_on(landscape: Landscape, x: Tensor, found: Subnetworks, tmp_path: Path) -> None:
    file = tmp_path / "state.safetensors"

    def stop(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        decompose(landscape, x, SETTINGS, checkpoint=file, watch=stop)
    seen: list[int] = []
    resumed = decompose(landscape, x, SETTINGS, checkpoint=file, watch=lambda done, _: seen.append(done))
    assert seen == [4, 5, 6]
    assert torch.equal(resumed.losses, found.losses)
    assert torch.equal(resumed.encoder.dense("decoder.bias"), found.encoder.dense("decoder.bias"))
    assert [path.name for path in tmp_path.iterdir()] == [file.name]
    with pytest.raises(BadInput, match="expected the state of this decomposition, found that of another one; remove the file"):
        decompose(landscape, x, SETTINGS.model_copy(update={"seed": 1}), checkpoint=file)
    file.write_bytes(b"nothing")
    with pytest.raises(BadInput, match=r"expected the state of a decomposition, found .*; remove the file to start afresh"):
        decompose(landscape, x, SETTINGS, checkpoint=file)


def test_saved_and_read(landscape: Landscape, x: Tensor, found: Subnetworks, tmp_path: Path) -> None:
    found.save(tmp_path)
    read = Subnetworks.read(tmp_path)
    assert read.settings == found.settings
    assert torch.equal(read.losses, found.losses)
    assert torch.equal(read.reconstruct(landscape, x).error, found.reconstruct(landscape, x).error)
    (tmp_path / "subnetworks.safetensors").unlink()
    with pytest.raises(BadInput, match=r"expected subnetworks.safetensors, found no such file; run 'unmerge circuits decompose' first"):
        Subnetworks.read(tmp_path)


def test_a_start_is_gone_on_from(landscape: Landscape, x: Tensor, found: Subnetworks) -> None:
    same = decompose(landscape, x, SETTINGS.model_copy(update={"epochs": 0}), start=found)
    assert torch.equal(same.decoder.gram(), found.decoder.gram())
    assert same.losses.shape == (0, 2)


def test_directions_that_are_planted_are_found() -> None:
    """f = W x with one-hot inputs: the gradient of a pair (i, r) is 2 (w_i - w_r) e_i^T, one direction an input if w_r is the mean."""
    torch.manual_seed(0)
    model = nn.Linear(4, 6, bias=False)
    x = torch.eye(4).repeat(40, 1)
    found = L3D(4, reference="mean", share=0.25, epochs=90, batch=32, learning_rate=0.03).fit(model, x)
    weight = model.weight.detach()
    planted = (weight - weight.mean(1, keepdim=True)).T[:, :, None] * torch.eye(4)[:, None, :]
    cosines = cosine_matrix(found.components_["weight"], planted).abs()
    assert (cosines.max(0).values > 0.98).all()
    assert float(found.losses_[-1]) < 0.05


def test_the_estimator(landscape: Landscape, x: Tensor, found: Subnetworks) -> None:
    from unmerge_lab.circuits.toys import Autoencoder

    model = Autoencoder(5, 2)
    model.load_state_dict({name: tensor[0] for name, tensor in landscape.parameters.items()})
    fitted = L3D(**SETTINGS.model_dump()).fit(model, x[0])
    torch.testing.assert_close(fitted.components_["encoder.weight"], found.decoder.dense("encoder.weight")[0], atol=1e-4, rtol=1e-3)
    assert fitted.encoders_["decoder.bias"].shape == (4, 5)
    assert fitted.impact(x[0]).shape == (64, 4)
    assert (fitted.impact(x[0]) >= 0).all()
    moved = {name: parameter + 0.5 * fitted.components_[name][2] for name, parameter in model.named_parameters()}
    torch.testing.assert_close(fitted.intervene(x[0], {2: 0.5}), torch.func.functional_call(model, moved, (x[0],)).detach())
    both = fitted.intervene(x[0], {2: 0.5, 1: -0.2}, ["encoder.weight"])
    moved = dict(model.named_parameters()) | {
        "encoder.weight": model.encoder.weight + 0.5 * fitted.components_["encoder.weight"][2] - 0.2 * fitted.components_["encoder.weight"][1]
    }
    torch.testing.assert_close(both, torch.func.functional_call(model, moved, (x[0],)).detach())


def test_coefficients_are_inner_products_with_the_gradient(landscape: Landscape, x: Tensor, found: Subnetworks) -> None:
    references = landscape.outputs(x.roll(1, 1))
    expected = found.encoder.project(landscape.gradients(x, references))
    torch.testing.assert_close(found.coefficients(landscape, x, references), expected)


def test_the_reconstruction_of_all_coefficients_in_batches(landscape: Landscape, x: Tensor, found: Subnetworks) -> None:
    whole = found.reconstruct(landscape, x, share=1.0)
    assert torch.allclose(whole.active, torch.ones(2, 4))
    part = found.reconstruct(landscape, x)
    assert (part.active.mean(1) < 0.15).all()


def test_bad_input(landscape: Landscape, x: Tensor) -> None:
    with pytest.raises(BadInput, match=r"x: expected samples of 2 runs, at least a batch of 16 each, found 8 samples of 2 runs"):
        decompose(landscape, x[:, :8], SETTINGS)
    with pytest.raises(BadInput, match=r"expected finite gradients that are not all zero, found a loss of .*nan"):
        decompose(landscape, x * float("nan"), SETTINGS)
    with pytest.raises(BadInput, match=r"rank: expected a parameter .*, found head; mend its name"):
        decompose(landscape, x, SETTINGS.model_copy(update={"rank": {"head": 2}}))
    with pytest.raises(BadInput, match="L3D: expected a decomposition that was fitted, found none; call fit first"):
        _ = L3D(2).components_
