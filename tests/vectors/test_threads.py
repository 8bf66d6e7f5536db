"""Several tensors at once: in order, errors in their turn, no more of them in memory than asked for."""

from __future__ import annotations

import threading

import pytest
import torch

from unmerge.vectors import each_tensor, torch_threads

NAMES = [f"t{place}" for place in range(9)]


def test_results_come_in_order_whichever_is_ready_first() -> None:
    second = threading.Event()

    def work(tensor: str) -> str:
        if tensor == "t0":
            assert second.wait(10)  # so the next one is worked on meanwhile
        if tensor == "t1":
            second.set()
        return tensor.upper()

    with torch_threads(2):
        assert list(each_tensor(NAMES, dict.fromkeys(NAMES, (2, 2)), work)) == [name.upper() for name in NAMES]
        assert list(each_tensor([], {}, work)) == []


def test_an_error_is_raised_in_its_turn() -> None:
    def work(tensor: str) -> str:
        if tensor == "t2":
            raise ValueError(tensor)
        return tensor

    seen: list[str] = []
    with pytest.raises(ValueError, match="t2"):
        seen.extend(iter(each_tensor(NAMES, dict.fromkeys(NAMES, (2, 2)), work)))
    assert seen == ["t0", "t1"]


@pytest.mark.parametrize(
    ("available", "shape", "at_once", "each"), [(8, (2, 2), 8, 1), (8, (1 << 13, 1 << 13), 4, 2), (1, (2, 2), 1, 1), (8, (1 << 15, 1 << 15), 2, 4)]
)
def test_large_tensors_are_fewer_at_a_time_with_more_threads_each(available: int, shape: tuple[int, int], at_once: int, each: int) -> None:
    lock, running, most, used = threading.Lock(), 0, 0, set()
    gate = threading.Barrier(at_once)

    def work(tensor: str) -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        if int(tensor[1:]) < at_once:
            with torch_threads(1):  # what one does, another that starts meanwhile does not take over
                gate.wait(10)
        with lock:
            used.add(torch.get_num_threads())
            running -= 1

    with torch_threads(available):
        list(each_tensor(NAMES, dict.fromkeys(NAMES, shape), work))
        assert torch.get_num_threads() == available
    assert (most, used) == (at_once, {each})
