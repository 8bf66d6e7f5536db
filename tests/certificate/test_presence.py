"""The presence test, on surrogates against dense oracles and on the zoo's own merges."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from unmerge.certificate import gather, presence, surrogate_weights
from unmerge.certificate.directions import Directions
from unmerge.certificate.spectrum import signal_of
from unmerge.decomposition import open_base, open_dictionary
from unmerge.vectors import Dense, Held, LowRank, gram
from unmerge.zoo import embedded_zoo


def random_atoms(count: int, shape: tuple[int, int], rank: int) -> list[LowRank]:
    torch.manual_seed(0)
    shared = torch.randn(shape[0], 1, dtype=torch.float64)
    return [
        LowRank(torch.cat([shared, torch.randn(shape[0], rank - 1, dtype=torch.float64)], 1), torch.randn(rank, shape[1], dtype=torch.float64))
        for _ in range(count)
    ]


@pytest.mark.parametrize("rank", [3, 5])  # two atoms that share a column make a matrix of rank 5
def test_surrogates_against_dense(rank: int) -> None:
    """Containment in a surrogate is what its dense matrix shows, as long as it is not filled up."""
    atoms = random_atoms(4, (30, 20), 3)
    directions = Directions.of(list(enumerate(atoms)), 3)
    weights = np.array([[0.5, 0.0, 1.1, 0.0], [0.0, 0.7, 0.3, 0.0]])
    found = directions.surrogates(weights, rank)
    for row, weight in enumerate(weights):
        dense = sum((float(w) * atom.dense() for w, atom in zip(weight, atoms, strict=True)), torch.zeros(30, 20, dtype=torch.float64))
        left, _, right = torch.linalg.svd(dense, full_matrices=False)
        along = ((left[:, :rank].T @ directions.left) ** 2).sum(0) * ((right[:rank] @ directions.right) ** 2).sum(0)
        np.testing.assert_allclose(found[row], along.numpy(), atol=1e-8)


def test_filled_surrogate_contains_everything() -> None:
    atoms = random_atoms(3, (8, 8), 2)
    np.testing.assert_allclose(Directions.of(list(enumerate(atoms)), 2).surrogates(np.array([[1.0, 0.0, 0.0]]), 8), 1.0)


def test_present_directions_are_contained() -> None:
    torch.manual_seed(0)
    atoms = [LowRank(torch.randn(40, 3, dtype=torch.float64), torch.randn(3, 30, dtype=torch.float64)) for _ in range(3)]
    signal = signal_of(Dense(0.5 * atoms[0].dense() + atoms[1].dense()))
    directions = Directions.of(list(enumerate(atoms)), 3)
    containment = directions.containment(signal)
    np.testing.assert_allclose(containment[directions.owner != 2], 1.0, atol=1e-9)
    assert containment[directions.owner == 2].max() < 0.9


@pytest.mark.parametrize("kept", [1.0, 0.3], ids=["whole", "dare at density .3"])
@pytest.mark.parametrize("group", ["known", "mixed", "unknown"])
def test_zoo(group: str, kept: float) -> None:
    """Exactly the known atoms that are in the target, whatever unknown ones are beside them."""
    zoo: Path = embedded_zoo()
    base = open_base(zoo / "zoo-base")
    known, unknown = (open_dictionary([zoo / half], base).atoms for half in ("known", "unknown"))
    inside = {"known": [*known[:3]], "mixed": [*known[3:5], *unknown[:3]], "unknown": [*unknown[5:9]]}[group]
    torch.manual_seed(1)
    merged = {}
    for tensor in known[0].shapes:
        total = torch.zeros(known[0].shapes[tensor])
        for atom, weight in zip(inside, (0.9, 0.5, 0.7, 0.4, 0.6), strict=False):
            dense = atom.delta(tensor).dense()
            total += weight * dense * (torch.rand(dense.shape) < kept) / kept
        merged[tensor] = Dense(total)
    target = Held("target", merged)
    weights = surrogate_weights(60, len(known), seed=0)
    products = gram(known, target)
    apparent = products.correlation.sum(0) / np.diag(products.gram.sum(0))
    result = presence(gather(known, target, weights), apparent, weights)
    assert {atom.name for atom, there in zip(known, result.present, strict=True) if there} == {atom.name for atom in inside} & {
        atom.name for atom in known
    }
