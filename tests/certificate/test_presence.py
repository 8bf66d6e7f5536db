"""The presence test, on surrogates against dense oracles and on the zoo's own merges."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from unmerge.certificate.directions import Directions
from unmerge.certificate.evidence import gather
from unmerge.certificate.presence import PresenceTest, stand_ins, surrogate_weights
from unmerge.decomposition import open_base, open_dictionary
from unmerge.vectors import Dense, Held, LowRank, gram
from unmerge_lab import embedded_zoo


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


def held(changes: dict[str, list[LowRank]]) -> list[Held]:
    """Atoms from each tensor's changes, in order."""
    return [Held(f"atom {place}", dict(zip(changes, deltas, strict=True))) for place, deltas in enumerate(zip(*changes.values(), strict=True))]


def test_present_directions_are_contained() -> None:
    torch.manual_seed(0)
    deltas = [LowRank(torch.randn(40, 3, dtype=torch.float64), torch.randn(3, 30, dtype=torch.float64)) for _ in range(3)]
    target = Held("target", {"w": Dense(0.5 * deltas[0].dense() + deltas[1].dense())})
    (item,) = gather(held({"w": deltas}), target, surrogate_weights(5, 3, 0), ["w", "elsewhere"])
    np.testing.assert_allclose(item.containment[item.owner != 2], 1.0, atol=1e-9)
    assert item.containment[item.owner == 2].max() < 0.9
    dense = target.delta("w").dense()
    left, values, right = deltas[1].svd()
    np.testing.assert_allclose(item.along[item.owner == 1], torch.einsum("oq,oi,qi->q", left, dense, right).numpy(), atol=1e-9)
    np.testing.assert_allclose(item.values[item.owner == 1], values.numpy())


@pytest.mark.parametrize("atoms", [1, 2, 3])
def test_small_dictionaries(atoms: int) -> None:
    """With too few atoms relatives are made up: an atom that is there is found, one that is only related to what is there is not."""
    torch.manual_seed(3)
    shape, names = (60, 50), [f"w{place}" for place in range(6)]

    def some(count: int) -> dict[str, list[LowRank]]:
        return {
            name: [LowRank(torch.randn(shape[0], 4, dtype=torch.float64), torch.randn(4, shape[1], dtype=torch.float64)) for _ in range(count)]
            for name in names
        }

    dictionary, others = some(atoms), some(2)
    families = [[atom] for atom in range(atoms)]
    weights = surrogate_weights(40, atoms + stand_ins(families), 0)
    assert stand_ins(families) == 4 * atoms

    def present(first: dict[str, list[LowRank]]) -> list[bool]:
        noise = {name: 0.05 * torch.randn(shape, dtype=torch.float64) for name in names}
        target = {name: Dense(first[name][0].dense() + 0.8 * others[name][1].dense() + noise[name]) for name in names}
        evidence = gather(held(dictionary), Held("target", target), weights, names)
        found = PresenceTest(evidence, weights, families).presence(np.full(atoms, 0.5)).present
        return [bool(there) for there in found]

    assert present(dictionary) == [True] + [False] * (atoms - 1)
    assert present(others) == [False] * atoms
    # related to the first atom at cosine .5 on both sides, as stand-ins are
    relatives = {
        name: [LowRank(0.5 * deltas[0].b + 0.75**0.5 * fresh.b, 0.5 * deltas[0].a + 0.75**0.5 * fresh.a)]
        for (name, deltas), (fresh, _) in zip(dictionary.items(), others.values(), strict=True)
    }
    assert present(relatives) == [False] * atoms


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
    families = [[atom] for atom in range(len(known))]
    result = PresenceTest(gather(known, target, weights, products.tensors), weights, families).presence(apparent)
    assert {atom.name for atom, there in zip(known, result.present, strict=True) if there} == {atom.name for atom in inside} & {
        atom.name for atom in known
    }
