"""Intervals hold the weight where something happened to the merge that no component says: training, noise, an unknown that drowns in it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from real_like import SHAPES, adapters, certified, claims, unit

from unmerge.certificate import Certificate, Grid
from unmerge.certificate.candidates import Candidates
from unmerge.certificate.coefficients import INTERVALS
from unmerge.certificate.evidence import gather
from unmerge.certificate.intervals import along_atoms
from unmerge.certificate.members import Look
from unmerge.vectors import Dense, Held, LowRank, gram

Adapter = dict[str, LowRank]


def trained(size: float, atoms: list[Adapter], along: float, generator: torch.Generator) -> Adapter:
    """What full fine-tuning leaves: a spectrum without an edge in directions of its own, and a share of each atom."""
    changes = {}
    for name, (out, into) in SHAPES.items():
        left, right = (torch.linalg.qr(torch.randn(side, into, generator=generator))[0] for side in (out, into))
        values = 1 / torch.arange(1, into + 1) ** 0.7
        change = (left * (size * values / values.norm())) @ right.T
        for atom in atoms:
            change += along * atom[name].dense()
        changes[name] = LowRank(change, torch.eye(into))
    return changes


def noise(size: float, generator: torch.Generator) -> Adapter:
    return {
        name: LowRank(size / (out * into) ** 0.5 * torch.randn(out, into, generator=generator), torch.eye(into))
        for name, (out, into) in SHAPES.items()
    }


def with_columns_of(atom: Adapter, common: Adapter) -> Adapter:
    """An adapter that shares columns with all others."""
    return {name: LowRank(unit(delta.b + 0.7 * common[name].b) * delta.b.norm(dim=0), delta.a + 0.5 * common[name].a) for name, delta in atom.items()}


def held(certificate: Certificate, weights: dict[int, float]) -> list[bool]:
    found = {one.atom: one for one in certificate.found}
    assert found.keys() == weights.keys()
    return [found[atom].interval[0] <= weight <= found[atom].interval[1] for atom, weight in weights.items()]


def overlap(one: Adapter, other: Adapter) -> float:
    """The inner product of two adapters."""
    return sum(float((one[name].dense() * other[name].dense()).sum()) for name in SHAPES)


def candidates(drawn: list[Adapter], parts: list[tuple[Adapter, float]], chosen: list[int]) -> Candidates:
    """Some atoms of a dictionary before they are measured in a sum of parts."""
    atoms = [Held(f"atom {place}", changes) for place, changes in enumerate(drawn)]
    target = Held("target", {name: Dense(sum(weight * atom[name].dense() for atom, weight in parts)) for name in SHAPES})
    seen = gather(atoms, target, np.zeros((1, len(atoms))), SHAPES)
    return Candidates(atoms, target, gram(atoms, target), seen, chosen, np.zeros(len(atoms), dtype=bool), None)


@pytest.mark.parametrize("dtype", [None, torch.bfloat16], ids=["float32", "bfloat16"])
def test_further_training(dtype: torch.dtype | None) -> None:
    """The training unlearns a little of each adapter; intervals hold the weights, no other atom is named, and no atom becomes a relative."""
    generator = torch.Generator().manual_seed(0)
    drawn = adapters(8, generator)
    change = trained(0.6, drawn[:2], -0.005, generator)
    certificate = certified([(drawn[0], 0.9), (drawn[1], 0.5), (change, 1.0)], drawn, dtype)
    assert all(held(certificate, {0: 0.9, 1: 0.5}))
    assert "relative" not in claims(certificate).values()


def test_a_low_rank_unknown_leaves_intervals_narrow() -> None:
    """What ends above the noise is projected off whole: as wide an interval as after training would say less than is known."""
    drawn = adapters(9, torch.Generator().manual_seed(1))
    certificate = certified([(drawn[0], 0.9), (drawn[8], 0.6)], drawn[:8], torch.bfloat16)
    (found,) = certificate.found
    assert found.interval[1] - found.interval[0] < 0.006


def test_what_absent_atoms_have_in_common_with_the_rest() -> None:
    """An unknown adapter lies along absent atoms by the usual cosine; noise by no more than chance, which counts for nothing."""
    generator = torch.Generator().manual_seed(5)
    (common,) = adapters(1, generator)
    drawn = [with_columns_of(atom, common) for atom in adapters(12, generator)]
    grains = noise(3.0, generator)
    unknown = candidates(drawn[:11], [(drawn[0], 0.9), (drawn[11], 0.8), (grains, 1.0)], [0])
    cosines = [overlap(drawn[11], other) / (overlap(other, other) * overlap(drawn[11], drawn[11])) ** 0.5 for other in drawn[1:11]]
    expected = 1.5 * np.sqrt(np.mean(np.square(cosines))) * 0.8 * (overlap(drawn[11], drawn[11]) / overlap(drawn[0], drawn[0])) ** 0.5
    assert along_atoms(unknown, np.array([0.9])) == pytest.approx([expected], rel=0.2)
    assert along_atoms(candidates(drawn[:11], [(drawn[0], 0.9), (grains, 1.0)], [0]), np.array([0.9]))[0] < 0.1 * expected
    # two strangers tell nothing
    assert along_atoms(candidates(drawn[:3], [(drawn[0], 0.9), (drawn[11], 0.8), (grains, 1.0)], [0]), np.array([0.9])).tolist() == [0.0]


def test_atoms_without_a_low_rank_beside_others() -> None:
    """The change of a full fine-tune as an atom: it and an adapter are found beside an unknown one, and neither is called a relative."""
    generator = torch.Generator().manual_seed(3)
    drawn = adapters(9, generator)
    full = [trained(1.0, [], 0.0, generator) for _ in range(6)]
    certificate = certified([(drawn[0], 0.8), (full[0], 0.7), (drawn[8], 0.6)], [*drawn[:8], *full], torch.bfloat16)
    assert all(held(certificate, {0: 0.8, 8: 0.7}))
    assert "relative" not in claims(certificate).values()


def test_nothing_is_named_whose_coefficient_may_be_0() -> None:
    """Where rounding explains every weight, an atom without which the others do so as well is no component."""
    drawn = adapters(6, torch.Generator().manual_seed(4))
    base = {name: (0.1 * torch.randn(shape, generator=torch.Generator().manual_seed(9))).bfloat16() for name, shape in SHAPES.items()}
    change = {name: sum(weight * drawn[place][name].dense() for place, weight in ((0, 1.0), (1, 0.8))) for name in SHAPES}
    target = Held("target", {name: Dense((base[name].float() + change[name]).bfloat16().float() - base[name].float()) for name in SHAPES})
    atoms = [Held(f"atom {place}", changes) for place, changes in enumerate(drawn)]
    grid, nothing = Grid(base.__getitem__, lambda _: torch.bfloat16), np.zeros(6, dtype=bool)
    content = Look(atoms, target, gram(atoms, target), gather(atoms, target, np.zeros((1, 6)), SHAPES), nothing, grid, iter).components([0, 1, 3])
    assert content.measured.estimator == INTERVALS
    assert content.chosen == [0, 1]
