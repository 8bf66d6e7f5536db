"""The order of rounding, told from weights that were merged as PEFT, mergekit, MLX and scripts merge them, written out in torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from unmerge.certificate.float_grid import grid_of
from unmerge.certificate.rounding import Grid, Sample
from unmerge.certificate.rounding_fit import RoundingFit, rounding_fit
from unmerge.vectors import Dense, Held, LowRank

TRUTH = (0.9, 0.5, 0.7)
SHAPES = {f"layers.{layer}.weight": (96, 128) for layer in range(2)}
Merge = Callable[[Tensor, Sequence[tuple[Tensor, float]], torch.dtype], Tensor]


def once(base: Tensor, parts: Sequence[tuple[Tensor, float]], dtype: torch.dtype) -> Tensor:
    """All in float32, saved in 16 bits."""
    return (base.float() + sum(weight * delta for delta, weight in parts)).to(dtype)


def sum_rounded(base: Tensor, parts: Sequence[tuple[Tensor, float]], dtype: torch.dtype) -> Tensor:
    """PEFT's safe_merge of adapters that were concatenated; MLX."""
    return base.to(dtype) + sum(weight * delta for delta, weight in parts).to(dtype)


def by_hand(base: Tensor, parts: Sequence[tuple[Tensor, float]], dtype: torch.dtype) -> Tensor:
    """A script that stays in 16 bits."""
    total = torch.zeros_like(base, dtype=dtype)
    for delta, weight in parts:
        total = total + (weight * delta).to(dtype)
    return base.to(dtype) + total


def one_by_one(base: Tensor, parts: Sequence[tuple[Tensor, float]], dtype: torch.dtype) -> Tensor:
    """PEFT's merge_and_unload."""
    merged = base.to(dtype).clone()
    for delta, weight in parts:
        merged += weight * delta
    return merged


def safely(base: Tensor, parts: Sequence[tuple[Tensor, float]], dtype: torch.dtype) -> Tensor:
    """PEFT's safe_merge of several adapters."""
    merged = base.to(dtype).clone()
    for delta, weight in parts:
        merged += (weight * delta).to(dtype)
    return merged


def mergekit_linear(base: Tensor, parts: Sequence[tuple[Tensor, float]], dtype: torch.dtype) -> Tensor:
    """Adapters merged into the base, then weighed in float32."""
    merged = base.float()
    for delta, weight in parts:
        merged = merged + weight * ((base.float() + delta).to(dtype).float() - base.float())
    return merged.to(dtype)


def mergekit_arithmetic(base: Tensor, parts: Sequence[tuple[Tensor, float]], dtype: torch.dtype) -> Tensor:
    """The same, all of it in 16 bits, the weights too."""
    deltas = [((base.float() + delta).to(dtype) - base.to(dtype)) * torch.tensor(weight, dtype=dtype) for delta, weight in parts]
    return base.to(dtype) + torch.stack(deltas).sum(0)


def base_first(base: Tensor, parts: Sequence[tuple[Tensor, float]], dtype: torch.dtype) -> Tensor:
    """A float32 base that is loaded in 16 bits."""
    return once(base.to(dtype), parts, dtype)


ORDERS: dict[str, tuple[Merge, torch.dtype]] = {
    "together": (once, torch.bfloat16),
    "together, sum rounded": (sum_rounded, torch.bfloat16),
    "together, products rounded": (by_hand, torch.bfloat16),
    "one after another": (one_by_one, torch.bfloat16),
    "one after another, products rounded": (safely, torch.bfloat16),
    "atoms rounded first, together": (mergekit_linear, torch.bfloat16),
    "atoms rounded first, together, products rounded": (mergekit_arithmetic, torch.bfloat16),
    "base rounded first, together": (base_first, torch.float32),
}


def merged(merge: Merge, steps: float, dtype: torch.dtype, stored: torch.dtype, weights: Sequence[float] = TRUTH) -> tuple[Sample, np.ndarray]:
    """A merge with changes of so many steps of the grid, atoms in the order of their weights, and least squares on it."""
    torch.manual_seed(0)
    size = (0.02 * torch.finfo(dtype).eps * steps / 2) ** 0.5
    base = {
        name: (0.02 * torch.randn(shape)).to(dtype).to(stored) if stored == dtype else 0.02 * torch.randn(shape) for name, shape in SHAPES.items()
    }
    atoms = [
        Held(f"atom{place}", {name: LowRank(size * torch.randn(shape[0], 4), size * torch.randn(4, shape[1])) for name, shape in SHAPES.items()})
        for place in range(len(weights))
    ]
    change = {}
    for name in SHAPES:
        parts = [(atom.deltas[name].dense(), weight) for atom, weight in zip(atoms, weights, strict=True)]
        change[name] = Dense(merge(base[name], parts, dtype).double() - base[name].double())
    sample = Sample.of(atoms, Held("target", change), Grid(base.__getitem__, lambda _: dtype))
    start = np.linalg.lstsq(sample.atoms.numpy().T, sample.change.numpy(), rcond=None)[0]
    return sample, start


def check(found: RoundingFit, weights: Sequence[float] = TRUTH) -> None:
    """The coefficients, to a thousandth, inside their intervals."""
    assert found.explains
    np.testing.assert_allclose(found.coefficients, weights, rtol=1e-3)
    assert (found.interval[:, 0] <= weights).all()
    assert (weights <= found.interval[:, 1]).all()


@pytest.mark.parametrize(("name", "dtype"), [*((name, torch.bfloat16) for name in ORDERS), ("together, sum rounded", torch.float16)])
def test_it_is_told(name: str, dtype: torch.dtype) -> None:
    """Changes of two steps: every order is named, and its coefficients come out."""
    merge, stored = ORDERS[name]
    sample, start = merged(merge, 2.0, dtype, dtype if stored == torch.bfloat16 else stored)
    found = rounding_fit(sample, start)
    assert [str(order) for order in found.ties] == [name]
    assert found.identical > 0.995
    if name == "atoms rounded first, together, products rounded":
        check(found, torch.tensor(TRUTH).to(dtype).double().tolist())
    else:
        check(found)


@pytest.mark.parametrize("steps", [0.5, 20.0])
def test_the_sequence_is_found(steps: float) -> None:
    """The last atom of the dictionary was added first, and the first one last."""
    weights = (0.7, 0.5, 0.9)
    sample, start = merged(lambda base, parts, dtype: one_by_one(base, parts[::-1], dtype), steps, torch.bfloat16, torch.bfloat16, weights)
    found = rounding_fit(sample, start)
    assert found.is_told
    assert found.order.sequence == (2, 1, 0)
    check(found, weights)


def test_one_atom_at_weight_one_cannot_be_told() -> None:
    """Rounded first or together: the same weights. What rounding leaves is known all the same."""
    sample, start = merged(once, 1.0, torch.bfloat16, torch.bfloat16, (1.0,))
    found = rounding_fit(sample, start)
    assert not found.is_told
    assert {"together", "atoms rounded first, together"} <= {str(order) for order in found.ties}
    left = float((sample.change - sample.atoms[0]).square().sum() / sample.change.square().sum())
    assert 0.02 < left == pytest.approx(found.rounding_share, rel=0.01)
    check(found, (1.0,))


def test_a_base_of_float32_leaves_nothing_to_round_atoms_to() -> None:
    """mergekit on it or a script: one and the same, so there is one name."""
    sample, start = merged(once, 1.0, torch.bfloat16, torch.float32)
    found = rounding_fit(sample, start)
    assert [str(order) for order in found.ties] == ["together"]
    check(found)


def test_nothing_is_told_beside_something_unknown() -> None:
    sample, start = merged(once, 2.0, torch.bfloat16, torch.bfloat16)
    found = rounding_fit(sample.only([0, 2]), start[[0, 2]])
    assert not found.explains
    assert not found.is_told


def test_the_grid_is_that_of_the_values() -> None:
    torch.manual_seed(0)
    values = 0.02 * torch.randn(4096)
    assert grid_of(values.bfloat16().double(), torch.float32) == torch.bfloat16
    assert grid_of(values.bfloat16().double(), torch.float16) == torch.bfloat16
    assert grid_of(values.half().double(), torch.float32) == torch.float16
    assert grid_of(values.double(), torch.float32) == torch.float32
    assert grid_of(torch.ones(8, dtype=torch.float64), torch.float32) == torch.float32  # too few to tell
