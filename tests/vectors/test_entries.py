"""Single entries of a change, and the largest ones, against the expanded tensor; in blocks of one row as well."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from unmerge.vectors import Delta, Dense, LowRank, at, entries, largest
from unmerge.vectors.entries import row_blocks, rows


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


CASES: dict[str, Callable[[], Delta]] = {
    "low rank": lambda: LowRank(random(9, 3), random(3, 5, seed=1)),
    "rank one": lambda: LowRank(random(9, 1), random(1, 5, seed=1)),
    "rank zero": lambda: LowRank(random(9, 0), random(0, 5)),
    "bf16 factors": lambda: LowRank(random(9, 2, dtype=torch.bfloat16), random(2, 5, seed=1, dtype=torch.bfloat16)),
    "dense": lambda: Dense(random(9, 5)),
    "dense bf16": lambda: Dense(random(9, 5, dtype=torch.bfloat16)),
    "dense transposed view": lambda: Dense(random(5, 9).T),
    "bias": lambda: Dense(random(11)),
    "scalar": lambda: Dense(torch.tensor(-2.5)),
    "convolution": lambda: Dense(random(3, 2, 2, 2)),
    "half zeros": lambda: Dense(random(9, 5) * (random(9, 5, seed=1) > 0)),
    "a few values over and over": lambda: Dense((random(9, 5) * 2).round()),
    "zero": lambda: Dense(torch.zeros(4, 4)),
}
BLOCKS = pytest.mark.parametrize("block", [1, 12, 1 << 22], ids=["row by row", "some rows", "whole"])


@pytest.fixture(params=CASES)
def delta(request: pytest.FixtureRequest) -> Delta:
    return CASES[request.param]()


def expanded(delta: Delta) -> torch.Tensor:
    if isinstance(delta, LowRank):
        return torch.einsum("or,ri->oi", delta.b.double(), delta.a.double()).reshape(-1)
    return delta.values.double().reshape(-1)


def by_sorting(values: torch.Tensor, count: int) -> list[int]:
    """Largest first, the first of equals, no zeros; as Python's own sort has it."""
    order = sorted(range(len(values)), key=lambda place: (-float(values[place]), place))
    return sorted(place for place in order[:count] if values[place] > 0)


@BLOCKS
def test_blocks_of_rows_make_up_the_tensor(delta: Delta, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entries, "_BLOCK", block)
    parts = [rows(delta, part) for part in row_blocks(delta.shape)]
    assert all(part.dtype == torch.float64 for part in parts)
    assert len(parts) == (1 if block > 100 or not delta.shape else -(-delta.shape[0] // max(1, block // part_width(delta))))
    torch.testing.assert_close(torch.cat(parts).reshape(-1), expanded(delta), rtol=1e-12, atol=1e-12)


def part_width(delta: Delta) -> int:
    return expanded(delta).numel() // delta.shape[0]


@pytest.mark.parametrize("block", [1, 1 << 22])
def test_entries_at_places(delta: Delta, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entries, "_BLOCK", block)
    values = expanded(delta)
    places = torch.randperm(len(values), generator=torch.Generator().manual_seed(2))[: len(values) // 2 + 1]
    found = at(delta, places)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, values[places], rtol=1e-12, atol=1e-12)
    assert at(delta, places[:0]).shape == (0,)


@BLOCKS
def test_the_largest_entries(delta: Delta, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entries, "_BLOCK", block)
    values = expanded(delta).abs()
    for count in (0, 1, 3, len(values) - 1, len(values), len(values) + 5):
        assert largest([delta], count).tolist() == by_sorting(values, count)


@BLOCKS
def test_the_largest_over_several_changes(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entries, "_BLOCK", block)
    for names in (["low rank", "dense"], ["dense bf16", "a few values over and over", "rank one"], ["half zeros", "rank zero"]):
        deltas = [CASES[name]() for name in names]
        values = torch.stack([expanded(delta).abs() for delta in deltas]).max(0).values
        assert largest(deltas, 10).tolist() == by_sorting(values, 10)


def test_no_more_than_a_block_is_expanded_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entries, "_BLOCK", 2000)
    sizes = []

    def watched(delta: Delta, block: slice) -> torch.Tensor:
        found = rows(delta, block)
        sizes.append(found.numel())
        return found

    monkeypatch.setattr(entries, "rows", watched)
    found = largest([LowRank(random(300, 2), random(2, 100, seed=1)), Dense(random(300, 100))], 50)
    assert len(found) == 50
    assert max(sizes) <= 1000
    assert np.sum(sizes) == 2 * 300 * 100
