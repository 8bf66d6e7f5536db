"""Phase 3: which weights to keep when task vectors are compressed to about 100,000 entries.

The weights of a task vector are ranked tensor by tensor by |dW|. Over several task vectors the largest of their |dW| counts, in the
weights' own units, so that all of them are read at the same places. Every tensor gives as many places as any other; one in which
fewer weights change gives those, and the others share what it leaves. A weight that no task vector changes is not a place.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor

from unmerge.vectors import TaskVector, common, largest

#: the proposal's "around 100k parameters"
ENTRIES = 100_000


def mask(vectors: Sequence[TaskVector], entries: int = ENTRIES, watch: Callable[[Iterable[str]], Iterable[str]] = iter) -> dict[str, Tensor]:
    """The places of the largest entries, by tensor: (k,) in ascending order, numbered row by row.

    Args:
        vectors: the task vectors that the ranking is over. A tensor that one of them leaves out has no places.
        entries: how many places, over all tensors.
        watch: wraps the loop over tensors, for a progress bar.

    Raises:
        BadInput: two of them give a tensor different shapes.
    """
    shapes, _ = common(vectors)
    places = {tensor: torch.zeros(0, dtype=torch.int64) for tensor in shapes}
    sizes = {tensor: math.prod(shape) for tensor, shape in shapes.items()}
    while True:
        counts = even_counts(sizes, entries)
        wanting = [tensor for tensor in shapes if len(places[tensor]) < counts[tensor]]
        if not wanting:
            return places
        for tensor in watch(wanting):
            places[tensor] = largest([vector.delta(tensor) for vector in vectors if tensor in vector.shapes], counts[tensor])
            if len(places[tensor]) < counts[tensor]:
                sizes[tensor] = len(places[tensor])  # no more of it changes: the others get what it leaves


def even_counts(sizes: Mapping[str, int], entries: int) -> dict[str, int]:
    """Share out ``entries`` evenly over tensors, no more to each than it has; they add up to ``entries`` where there are as many."""
    counts: dict[str, int] = {}
    left = entries
    for place, tensor in enumerate(sorted(sizes, key=lambda name: sizes[name])):  # small ones first: what they leave goes to the others
        counts[tensor] = min(sizes[tensor], left // (len(sizes) - place))
        left -= counts[tensor]
    return counts
