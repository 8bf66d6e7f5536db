"""Memory that is used again."""

from __future__ import annotations

import threading

import torch

from unmerge.vectors import Subtracted, in_scratch
from unmerge.vectors.scratch import scratch


def difference(rows: int, dtype: torch.dtype) -> tuple[Subtracted, torch.Tensor]:
    after, before = torch.randn(rows, 6, dtype=dtype), torch.randn(rows, 6, dtype=dtype)
    return Subtracted(after, before), after.double() - before.double()


def test_one_piece_for_all_sizes_and_dtypes() -> None:
    torch.manual_seed(0)
    places = set()
    for rows, dtype in ((9, torch.float64), (4, torch.bfloat16), (9, torch.float32), (1, torch.float64)):
        change, exact = difference(rows, dtype)
        found = in_scratch(change)
        assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        torch.testing.assert_close(found.double(), exact, rtol=1e-6, atol=1e-6)
        places.add(found.data_ptr())
    assert len(places) == 1


def test_each_thread_has_its_own() -> None:
    kept = scratch((3, 2), torch.float32).fill_(1.0)
    other = threading.Thread(target=lambda: scratch((3, 2), torch.float32).fill_(2.0))
    other.start()
    other.join()
    assert torch.equal(kept, torch.ones(3, 2))
