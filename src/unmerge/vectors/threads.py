"""Threads: several tensors at once with few threads each, rather than one after the other with all.

Most of what is done to a tensor is too small for several threads, which then wait for each other: on a busy machine a hundred times as
long. Tensors are independent. While one is read, others are worked on.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

Result = TypeVar("Result")

#: weights that may be in memory at once: 1 GB of a checkpoint and its base in 16 bits
_TOGETHER = 1 << 28
#: tensors at once, at least: one is read while another is worked on
_LEAST = 2


def each_tensor(tensors: Sequence[str], shapes: Mapping[str, Sequence[int]], work: Callable[[str], Result]) -> Iterator[Result]:
    """What ``work`` makes of each tensor, in order; an error is raised in its turn.

    Args:
        tensors: their names.
        shapes: of these tensors, and others: of large ones fewer are in memory at a time.
        work: reads and computes; it is called in other threads, several at once.
    """
    largest = max((math.prod(shapes[tensor]) for tensor in tensors), default=1)
    available = torch.get_num_threads()
    workers = max(min(_TOGETHER // max(largest, 1), available), _LEAST)
    with threads(max(available // workers, 1)), ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[Result]] = deque()
        for tensor in tensors:
            waiting.append(pool.submit(work, tensor))
            if len(waiting) > workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


@contextmanager
def threads(count: int) -> Iterator[None]:
    """torch works in so many threads while the block runs, and in every thread that is started there."""
    before = torch.get_num_threads()
    if before == count:
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
