"""Intervals that rounding leaves: against numbers enumerated on the grid, and fits on bases that hide most of a change."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from unmerge.certificate import float_grid, rounding
from unmerge.certificate.rounding import Grid, Sample
from unmerge.certificate.rounding_fit import rounding_fit
from unmerge.certificate.rounding_intervals import Intervals
from unmerge.certificate.rounding_order import TOGETHER
from unmerge.vectors import Dense, Held, LowRank

TRUTH = np.array([0.9, 0.5, 0.7])
SHAPES = {f"layers.{layer}.weight": (96, 128) for layer in range(4)}


def every(dtype: torch.dtype) -> Tensor:
    """All finite numbers of a 16-bit dtype, ascending, zero once."""
    numbers = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype).double()
    return torch.unique(numbers[numbers.isfinite()])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_intervals_end_half_way_to_the_neighbours(dtype: torch.dtype) -> None:
    """Every finite number: both signs, powers of two, zero, subnormal ones."""
    numbers = every(dtype)
    below, above = float_grid.cell(numbers, dtype)
    torch.testing.assert_close(below[1:], numbers.diff() / 2, rtol=0, atol=0)
    torch.testing.assert_close(above[:-1], numbers.diff() / 2, rtol=0, atol=0)


def test_intervals_of_float32() -> None:
    numbers = torch.tensor([1.0, -1.0, 1.5, -0.3, 2.0**-126, -(2.0**-130), 0.0, 3e-3], dtype=torch.float32)
    below, above = float_grid.cell(numbers.double(), torch.float32)
    infinity = torch.full_like(numbers, torch.inf)
    torch.testing.assert_close(2 * above, torch.nextafter(numbers, infinity).double() - numbers.double(), rtol=0, atol=0)
    torch.testing.assert_close(2 * below, numbers.double() - torch.nextafter(numbers, -infinity).double(), rtol=0, atol=0)


def problem(scale: float, seed: int = 0, truth: np.ndarray = TRUTH, dtype: torch.dtype = torch.bfloat16) -> tuple[list[Held], Held, Grid]:
    """Atoms merged into a base on a grid, which rounds the sum; the smaller the scale, the less of it is seen."""
    torch.manual_seed(seed)
    base = {name: (0.02 * torch.randn(shape)).to(dtype) for name, shape in SHAPES.items()}
    atoms, change = [], {name: torch.zeros(shape, dtype=torch.float64) for name, shape in SHAPES.items()}
    for place, coefficient in enumerate(truth):
        deltas = {name: LowRank(scale * torch.randn(shape[0], 4), torch.randn(4, shape[1])) for name, shape in SHAPES.items()}
        # an adapter is merged into the base in the base's dtype, as mergekit does
        merged = {name: Dense((base[name].float() + delta.dense()).double() - base[name].double()) for name, delta in deltas.items()}
        atoms.append(Held(f"atom {place}", deltas))
        for name, delta in merged.items():
            change[name] += coefficient * delta.values
    target = Held("target", {name: Dense((base[name].double() + change[name]).to(dtype).double() - base[name].double()) for name in SHAPES})
    # read in float64: the atoms are not rounded by themselves
    return atoms, target, Grid(lambda name: base[name].double(), lambda _: dtype)


def squares(atoms: list[Held], target: Held) -> np.ndarray:
    dense = np.stack([np.concatenate([atom.delta(name).dense().double().numpy().ravel() for name in SHAPES]) for atom in atoms], 1)
    change = np.concatenate([target.delta(name).dense().numpy().ravel() for name in SHAPES])
    return np.linalg.lstsq(dense, change, rcond=None)[0]


def together(sample: Sample) -> Intervals:
    """Where the sum must lie if it was rounded once."""
    return sample.intervals(TOGETHER, np.zeros(len(sample.atoms)))


def unchanged(target: Held) -> float:
    return float(np.mean([float((target.delta(name).dense() == 0).double().mean()) for name in SHAPES]))


@pytest.mark.parametrize(("scale", "share"), [(2.4e-5, 0.53), (8e-6, 0.78), (3e-6, 0.92)])
def test_fit_where_least_squares_is_off(scale: float, share: float) -> None:
    atoms, target, grid = problem(scale)
    assert unchanged(target) == pytest.approx(share, abs=0.05)
    first = squares(atoms, target)
    sample = Sample.of(atoms, target, grid)
    assert len(sample.base) == 4 * 96 * 128
    intervals = together(sample)
    fitted = intervals.fit(first)
    assert np.abs(first / TRUTH - 1).max() > 5e-3
    assert np.abs(fitted / TRUTH - 1).max() < 5e-4
    rounding = sample.step.square().sum() / 12
    after, before = (intervals.outside(coefficients).square().sum() / rounding for coefficients in (fitted, first))
    assert after < 1e-6 < before
    assert rounding_fit(sample, first).explains


def test_fit_is_optimal_beside_something_unknown() -> None:
    """The gradient of the squared distances is zero, and no step away from the answer is lower."""
    atoms, target, grid = problem(2.4e-5)
    first = squares(atoms[:2], target)
    sample = Sample.of(atoms[:2], target, grid)
    intervals = together(sample)
    fitted = intervals.fit(first)
    outside = intervals.outside(fitted)
    loss = float(outside.square().sum())
    gradient = (sample.atoms @ outside).numpy() / (sample.atoms.norm(dim=1).numpy() * float(outside.norm()))
    assert np.abs(gradient).max() < 1e-6
    assert not rounding_fit(sample, first).explains
    rng = np.random.default_rng(0)
    for _ in range(20):
        assert float(intervals.outside(fitted + 1e-3 * rng.standard_normal(2)).square().sum()) > loss
    np.testing.assert_allclose(intervals.fit(np.array([5.0, -3.0])), fitted, rtol=1e-5)


def test_outside_against_the_definition() -> None:
    """Distances to the ends of the interval that every number which rounds to the weight lies in."""
    atoms, target, grid = problem(2.4e-5)
    sample, coefficients = Sample.of(atoms, target, grid), np.array([1.2, 0.1, 0.9])
    place = torch.arange(0, len(sample.base), 97)
    numbers = every(torch.bfloat16)
    weight = (sample.base + sample.change)[place]
    at = torch.searchsorted(numbers, weight)
    low, high = (numbers[at - 1] + numbers[at]) / 2, (numbers[at + 1] + numbers[at]) / 2
    value = sample.base[place] + torch.from_numpy(coefficients) @ sample.atoms[:, place]
    expected = torch.where(value > high, value - high, torch.where(value < low, value - low, 0.0))
    torch.testing.assert_close(together(sample).outside(coefficients)[place], expected, rtol=1e-9, atol=1e-15)
    assert float(expected.abs().max()) > 0


def test_rounding_share_is_what_rounding_leaves() -> None:
    atoms, target, grid = problem(1e-4)
    change, error = 0.0, 0.0
    for name in SHAPES:
        ideal = sum((float(c) * atom.delta(name).dense().double() for c, atom in zip(TRUTH, atoms, strict=True)), torch.zeros(SHAPES[name]).double())
        change += float(target.delta(name).dense().square().sum())
        error += float((target.delta(name).dense() - ideal).square().sum())
    assert Sample.of(atoms, target, grid).rounding_share(TOGETHER, TRUTH) == pytest.approx(error / change, rel=1e-3)


def test_rows_are_sampled_where_there_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some rows of every tensor, and the answer stays."""
    atoms, target, grid = problem(2.4e-5)
    monkeypatch.setattr(rounding, "_HELD", 96 * 128 * 4 * 8 // 5)
    sample = Sample.of(atoms, target, grid)
    assert len(sample.base) == 4 * 96 * 128 / 6  # every fifth row would hold a little more than that
    assert sample.owner.unique().tolist() == [0, 1, 2, 3]
    fitted = rounding_fit(sample, squares(atoms, target)).coefficients
    assert np.abs(fitted / TRUTH - 1).max() < 2e-3
    some = sample.only([2, 0])
    torch.testing.assert_close(some.atoms, sample.atoms[[2, 0]])


def test_atoms_that_change_other_tensors() -> None:
    """A tensor that an atom does not change counts as zero; one that no atom changes is not read; scalars and biases are."""
    torch.manual_seed(0)
    shapes: dict[str, tuple[int, ...]] = {"a": (4, 6), "bias": (5,), "scalar": (), "other": (3, 3)}
    base = {name: torch.randn(shape).bfloat16() for name, shape in shapes.items()}
    first = Held("first", {"a": LowRank(torch.randn(4, 1), torch.randn(1, 6))})
    second = Held("second", {"bias": Dense(torch.randn(5)), "scalar": Dense(torch.randn(()))})
    target = Held("target", {name: Dense(torch.randn(shape)) for name, shape in shapes.items()})
    sample = Sample.of([first, second], target, Grid(lambda name: base[name], lambda _: torch.bfloat16))
    assert len(sample.base) == 24 + 5 + 1
    assert (sample.atoms[0, 24:] == 0).all()
    assert (sample.atoms[1, :24] == 0).all()
    torch.testing.assert_close(sample.atoms[0, :24], first.delta("a").dense().double().flatten(), rtol=1e-6, atol=1e-6)


def trimmed(density: float, by_size: bool) -> Sample:
    """A merge of which some of the entries are kept: the largest, as ties does, or any, as dare does."""
    atoms, _, grid = problem(1e-3)
    change = {}
    for name, shape in SHAPES.items():
        total = sum((float(c) * atom.delta(name).dense().double() for c, atom in zip(TRUTH, atoms, strict=True)), torch.zeros(shape).double())
        torch.manual_seed(1)
        size = total.abs() if by_size else torch.rand(shape)
        kept = size >= size.flatten().quantile(1 - density)
        base = grid.base(name)
        change[name] = Dense((base + total * kept).bfloat16().double() - base)
    return Sample.of(atoms, Held("target", change), grid)


@pytest.mark.parametrize("density", [0.3, 0.7])
def test_trimming_is_told_from_dropping_at_random(density: float) -> None:
    assert trimmed(density, by_size=True).is_trimmed(TRUTH)
    assert not trimmed(density, by_size=False).is_trimmed(TRUTH)
    assert not trimmed(1.0, by_size=True).is_trimmed(TRUTH)
