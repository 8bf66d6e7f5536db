"""What else could have made the skill fall? Three subtractions that are as large and are not the component.

- a *random direction*: in every tensor the atom's own singular values, in directions drawn at random;
- an *absent atom*: one of the dictionary that was not found in the target, made as long as the component;
- *shuffled modules*: the right atom, each of its changes in another tensor of the same shape.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from unmerge.vectors import Delta, Dense, Held, LowRank, Shape, TaskVector, norm_squared


def random_direction(atom: TaskVector, seed: int) -> Held:
    """As the atom, in every tensor: the same singular values, hence the same norm, in other directions."""
    generator = torch.Generator().manual_seed(seed)
    return Held(f"random, as {atom.name}", {tensor: _turned(atom.delta(tensor), generator) for tensor in atom.shapes})


def _turned(delta: Delta, generator: torch.Generator) -> Delta:
    if isinstance(delta, LowRank):
        left, values, right = delta.svd()
        into = _orthonormal(right.shape[1], len(values), generator)
        return LowRank((_orthonormal(left.shape[0], len(values), generator) * values).float(), into.T.float())
    if len(delta.shape) != 2:
        drawn = torch.randn(delta.shape, generator=generator)
        return Dense(drawn * (delta.values.float().norm() / drawn.norm()))
    # rows and columns in another order with other signs: orthogonal on both sides, without a decomposition
    rows, columns = (torch.randperm(side, generator=generator) for side in delta.shape)
    signs = [torch.randint(2, (side,), generator=generator) * 2 - 1 for side in delta.shape]
    return Dense(delta.values[rows][:, columns] * signs[0][:, None] * signs[1])


def _orthonormal(side: int, count: int, generator: torch.Generator) -> Tensor:
    """(side, count) random orthonormal columns in float64."""
    basis: Tensor = torch.linalg.qr(torch.randn(side, count, generator=generator, dtype=torch.float64))[0]
    return basis


def shuffled_modules(atom: TaskVector, seed: int) -> Held:
    """The atom's changes, each moved to another tensor of the same shape. One that is alone of its shape has nowhere to go and is left out."""
    generator = torch.Generator().manual_seed(seed)
    alike: dict[Shape, list[str]] = {}
    for tensor, shape in atom.shapes.items():
        alike.setdefault(shape, []).append(tensor)
    moved: dict[str, Delta] = {}
    for tensors in alike.values():
        if len(tensors) > 1:
            order = [tensors[place] for place in torch.randperm(len(tensors), generator=generator).tolist()]
            # each takes the place of its neighbour in a random order: none stays where it was
            moved |= {tensor: atom.delta(neighbour) for tensor, neighbour in zip(order, order[1:] + order[:1], strict=True)}
    return Held(f"shuffled {atom.name}", {tensor: moved[tensor] for tensor in atom.shapes if tensor in moved})


def length(vector: TaskVector) -> float:
    """||v|| over all tensors."""
    return math.sqrt(sum(norm_squared(vector.delta(tensor)) for tensor in vector.shapes))


def absent_atom(candidates: Mapping[str, TaskVector], seed: int) -> TaskVector:
    """One of the atoms that are not in the target, drawn."""
    names = sorted(candidates)
    return candidates[names[int(torch.randint(len(names), (1,), generator=torch.Generator().manual_seed(seed)))]]
