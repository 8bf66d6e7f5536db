"""Inner products over some of the weights against those of the expanded vectors, masked."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from unmerge.vectors import ChangedWeights, Delta, Dense, Held, LowRank, MaskedWeights, Weights, entries, gram

Rows = NDArray[np.float64]

#: one tensor of each kind
SHAPES = {"q": (11, 7), "bias": (13,), "conv": (3, 2, 2), "target's own": (4, 5)}


def low(out: int, into: int, rank: int = 2) -> LowRank:
    return LowRank(torch.randn(out, rank), torch.randn(rank, into))


def sparse(*shape: int) -> Dense:
    values = torch.randn(shape)
    return Dense(values * (torch.rand(shape) < 0.4))


def vectors() -> tuple[list[Held], Held]:
    torch.manual_seed(0)
    atoms = [
        Held("low", {"q": low(11, 7), "bias": Dense(torch.randn(13))}),
        Held("dense", {"q": Dense(torch.randn(7, 11).T), "conv": Dense(torch.randn(3, 2, 2).bfloat16())}),
        Held("sparse", {"q": sparse(11, 7), "conv": sparse(3, 2, 2)}),
    ]
    target = Held("target", {"q": sparse(11, 7), "bias": sparse(13), "conv": sparse(3, 2, 2), "target's own": low(4, 5)})
    return atoms, target


def flat(vector: Held, tensor: str) -> Rows:
    if tensor not in vector.shapes:
        return np.zeros(int(np.prod(SHAPES[tensor])))
    delta = vector.delta(tensor)
    values = delta.b.double() @ delta.a.double() if isinstance(delta, LowRank) else delta.values.double()
    return np.asarray(values.reshape(-1).numpy())


def check(atoms: list[Held], target: Held, weights: Weights, masks: dict[str, NDArray[np.bool_]]) -> None:
    found = gram(atoms, target, weights=weights)
    assert set(found.tensors) == set(SHAPES)
    for row, tensor in enumerate(found.tensors):
        mask = masks[tensor]
        rows, goal = np.stack([flat(atom, tensor)[mask] for atom in atoms]), flat(target, tensor)[mask]
        np.testing.assert_allclose(found.gram[row], rows @ rows.T, rtol=1e-10, atol=1e-10)
        np.testing.assert_allclose(found.correlation[row], rows @ goal, rtol=1e-10, atol=1e-10)
        assert found.norm_squared[row] == pytest.approx(goal @ goal, rel=1e-10)
        assert found.entries[row] == mask.sum()


@pytest.mark.parametrize("block", [1, 50, 1 << 22], ids=["row by row", "some rows", "whole"])
@pytest.mark.parametrize("lacking", ["", "bias", "q"])
def test_where_the_target_changes_weights(block: int, lacking: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entries, "_BLOCK", block)
    atoms, target = vectors()
    target = Held("target", {tensor: delta for tensor, delta in target.deltas.items() if tensor != lacking})
    check(atoms, target, ChangedWeights(), {tensor: flat(target, tensor) != 0 for tensor in SHAPES})


def test_at_the_places_of_a_mask() -> None:
    atoms, target = vectors()
    generator = np.random.default_rng(1)
    masks = {tensor: generator.random(int(np.prod(shape))) < 0.3 for tensor, shape in SHAPES.items()}
    masks["conv"][:] = False
    places = {tensor: torch.from_numpy(np.flatnonzero(mask)) for tensor, mask in masks.items() if tensor != "conv"}
    check(atoms, target, MaskedWeights(places), masks)


def test_all_places_are_all_weights() -> None:
    atoms, target = vectors()
    everywhere = {tensor: torch.arange(int(np.prod(shape))) for tensor, shape in SHAPES.items()}
    exact, masked = gram(atoms, target), gram(atoms, target, weights=MaskedWeights(everywhere))
    np.testing.assert_allclose(masked.gram, exact.gram, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(masked.correlation, exact.correlation, rtol=1e-6, atol=1e-9)
    np.testing.assert_array_equal(masked.entries, exact.entries)
    assert exact.entries.sum() == sum(np.prod(shape) for shape in SHAPES.values())


def test_a_target_without_zeros_restricts_nothing() -> None:
    atoms, _ = vectors()
    target: dict[str, Delta] = {tensor: Dense(torch.randn(shape)) for tensor, shape in SHAPES.items()}
    exact, changed = (
        gram(atoms, Held("t", target), weights=weights)
        for weights in (MaskedWeights({t: torch.arange(int(np.prod(s))) for t, s in SHAPES.items()}), ChangedWeights())
    )
    np.testing.assert_allclose(changed.gram, exact.gram, rtol=1e-10, atol=1e-12)


def test_some_of_the_tensors() -> None:
    atoms, target = vectors()
    whole = gram(atoms, target)
    part = whole.only([2, 0])
    assert part.tensors == (whole.tensors[2], whole.tensors[0])
    np.testing.assert_array_equal(part.correlation, whole.correlation[[2, 0]])
    np.testing.assert_array_equal(part.gram, whole.gram[[2, 0]])
    np.testing.assert_array_equal(part.entries, whole.entries[[2, 0]])
