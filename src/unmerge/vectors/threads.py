"""Threads: several tensors at once with few threads each, rather than one after the other with all.

Most of what is done to a tensor is too small for several threads, which then wait for each other: on a busy machine a hundred times as
long. Tensors are independent. While one is read, others are worked on.
"""

from __future__ import annotations

import contextvars
import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch
from threadpoolctl import threadpool_limits

Result = TypeVar("Result")

#: weights of the tensors that are worked on at once
_TOGETHER = 1 << 28
#: of tensors so large that they alone are more: one is read while another is worked on
_LEAST = 2


def each_tensor(tensors: Sequence[str], shapes: Mapping[str, Sequence[int]], work: Callable[[str], Result]) -> Iterator[Result]:
    """What ``work`` makes of each tensor, in order; an error is raised in its turn.

    As many at once as torch has threads, fewer of large ones, which have more threads each.

    Args:
        tensors: their names.
        shapes: of these tensors, and others.
        work: reads and computes; it is called in other threads, several at once.
    """
    sizes = {tensor: math.prod(shapes[tensor]) for tensor in tensors}
    available = torch.get_num_threads()
    usual = max(sum(sizes.values()) // max(len(sizes), 1), 1)
    workers = min(max(_TOGETHER // usual, _LEAST), available)
    each = max(available // workers, 1)
    waiting: deque[tuple[int, Future[Result]]] = deque()
    # a new thread takes torch's number of threads from whoever set it last: so each is told
    pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(each,))
    with torch_threads(each), threadpool_limits(1, user_api="blas"):
        try:
            for tensor, size in sizes.items():
                while len(waiting) > workers or (len(waiting) >= _LEAST and sum(held for held, _ in waiting) + size > _TOGETHER):
                    yield waiting.popleft()[1].result()
                waiting.append((size, pool.submit(contextvars.copy_context().run, work, tensor)))
            while waiting:
                yield waiting.popleft()[1].result()
        finally:
            pool.shutdown(cancel_futures=True)


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """In this thread torch works in so many threads while the block runs."""
    before = torch.get_num_threads()
    if before == count:
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
