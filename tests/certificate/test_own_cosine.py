"""How like an atom a target is within the atom's own subspaces."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from real_like import SHAPES, adapters, relative

from unmerge.certificate.evidence import TensorEvidence, gather
from unmerge.certificate.own_cosine import LEAST, own_cosine
from unmerge.vectors import Dense, Held, LowRank

Adapter = dict[str, LowRank]


def seen(atoms: list[Adapter], target: dict[str, torch.Tensor]) -> list[TensorEvidence]:
    held = [Held(f"atom {place}", changes) for place, changes in enumerate(atoms)]
    return gather(held, Held("target", {name: Dense(values) for name, values in target.items()}), np.zeros((1, len(atoms))), SHAPES)


def merge(parts: list[tuple[Adapter, float]]) -> dict[str, torch.Tensor]:
    return {name: sum((weight * atom[name].dense() for atom, weight in parts), torch.zeros(shape)) for name, shape in SHAPES.items()}


def test_the_atom_and_its_negative() -> None:
    drawn = adapters(3, torch.Generator().manual_seed(0))
    assert own_cosine(seen(drawn, merge([(drawn[0], 0.7)])), 0, {}) == pytest.approx(1, abs=1e-4)
    assert own_cosine(seen(drawn, merge([(drawn[0], -0.7)])), 0, {}) == pytest.approx(-1, abs=1e-4)


def test_others_are_subtracted() -> None:
    drawn = adapters(3, torch.Generator().manual_seed(1), start=0.9)
    both = seen(drawn, merge([(drawn[0], 0.2), (drawn[1], 1.0)]))
    assert own_cosine(both, 0, {1: 1.0}) == pytest.approx(1, abs=1e-3)
    assert own_cosine(both, 0, {}) < 0.99


def test_a_dense_oracle() -> None:
    """The cosine of U^T T W and the atom's singular values, by full decompositions of dense matrices."""
    drawn = adapters(4, torch.Generator().manual_seed(2))
    target = merge([(drawn[1], 0.8), (drawn[0], 0.3), (drawn[3], 0.5)])
    inner = contained = square = 0.0
    for name, values in target.items():
        left, sizes, right = torch.linalg.svd(drawn[0][name].dense().double(), full_matrices=False)
        kept = sizes > 1e-6 * sizes[0]
        within = left[:, kept].T @ values.double() @ right[kept].T
        inner += float(sizes[kept] @ within.diag())
        contained += float(within.square().sum())
        square += float(sizes[kept].square().sum())
    assert own_cosine(seen(drawn, target), 0, {}) == pytest.approx(inner / (contained * square) ** 0.5, rel=1e-5)


def test_strangers_with_the_same_rows() -> None:
    """An adapter of the same initialisation passes for a part of what it shares; it is like the atom only if it learnt the same."""
    generator = torch.Generator().manual_seed(3)
    drawn = adapters(8, generator, start=0.98)
    mixed = {name: LowRank(delta.b.roll(1, 1), delta.a) for name, delta in drawn[0].items()}  # other columns to the same rows
    assert abs(own_cosine(seen(drawn, merge([(mixed, 1.0)])), 0, {})) < LEAST
    assert own_cosine(seen(drawn, merge([(relative(drawn[0], 0.8, generator), 1.0)])), 0, {}) > LEAST


def test_parts_of_the_model() -> None:
    drawn = adapters(3, torch.Generator().manual_seed(4))
    names = [name for name in SHAPES if "layers.1." in name]
    target = merge([(drawn[1], 1.0)])
    for name in names:
        target[name] += drawn[0][name].dense()
    looked = seen(drawn, target)
    assert own_cosine(looked, 0, {1: 1.0}, names) == pytest.approx(1, abs=1e-3)
    assert own_cosine(looked, 0, {1: 1.0}) == pytest.approx((len(names) / len(SHAPES)) ** 0.5, rel=0.02)
