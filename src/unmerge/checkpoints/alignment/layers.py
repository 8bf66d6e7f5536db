"""Which of the base's layers each of a target's layers is: repeated, left out or in another order.

Layers are compared by a few rows of each of their matrices, at the same places: a layer is the one of the base whose rows its own are
alike to. A merge leaves that cosine near 1; two different layers have one near 0.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from unmerge.checkpoints.alignment.aligned_checkpoint import MOVED, AlignedCheckpoint, Operation
from unmerge.checkpoints.alignment.matching import ALIKE
from unmerge.checkpoints.alignment.sample import matrices, some_rows
from unmerge.checkpoints.alignment.tensor_map import TensorMap
from unmerge.checkpoints.checkpoint import Checkpoint
from unmerge.core.errors import BadInput

_LAYER = re.compile(r"^(.*?)\.(\d+)\.(.+)$")


def layer_of(tensor: str) -> tuple[str, int, str] | None:
    """The stack of layers that a tensor is in, the number of its layer, and its name there; None outside the layers.

    >>> layer_of("model.layers.3.mlp.up_proj.weight")
    ('model.layers', 3, 'mlp.up_proj.weight')
    """
    found = _LAYER.match(tensor)
    return (found[1], int(found[2]), found[3]) if found else None


def place_layers(target: AlignedCheckpoint, base: Checkpoint) -> AlignedCheckpoint:
    """The target with each of its layers under the name of the base's layer that it is.

    A layer that is there twice is read from its first copy.

    Raises:
        BadInput: the number of layers is not the base's, and a layer is like none of them.
    """
    for stack in _stacks(base):
        target = _place_stack(target, base, stack)
    return target


def _stacks(base: Checkpoint) -> list[str]:
    """Names that tensors of at least two layers begin with."""
    layers = {found[:2] for tensor in base.shapes if (found := layer_of(tensor))}
    return [stack for stack, count in Counter(stack for stack, _ in layers).items() if count > 1]


def _place_stack(target: AlignedCheckpoint, base: Checkpoint, stack: str) -> AlignedCheckpoint:
    ours, theirs = (_rows_of_layers(side, base, stack) for side in (target, base))
    if not ours:
        return target
    places = {layer: _nearest(rows, theirs, layer) for layer, rows in ours.items()}
    layers = list(places.values())
    if ours.keys() == theirs.keys() and (None in layers or all(layer == place for layer, place in places.items())):
        return target
    shown = ", ".join("?" if place is None else str(place) for _, place in sorted(places.items()))
    if None in layers:
        raise BadInput(
            expected=f"layers of the base ({len(theirs)} of them)",
            found=f"{len(ours)} layers of which at least one is like none of the base's ({stack}: {shown})",
            where=target.folder,
            hint="give the base that the target's layers were taken from, or merge the same layers without adapters and give that as the base",
        )
    return _renamed(target, base, stack, {layer: place for layer, place in sorted(places.items()) if place is not None}, shown)


def _renamed(target: AlignedCheckpoint, base: Checkpoint, stack: str, places: Mapping[int, int], shown: str) -> AlignedCheckpoint:
    first = {place: layer for layer, place in sorted(places.items(), reverse=True)}
    ways: dict[str, TensorMap] = {}
    twins: dict[str, str] = {}
    for tensor in target.shapes:
        found = layer_of(tensor)
        if not found or found[0] != stack:
            ways[tensor] = target.way(tensor)
        elif found[1] in places:
            name = f"{stack}.{places[found[1]]}.{found[2]}"
            if first[places[found[1]]] == found[1]:
                ways[name] = target.way(tensor)
            else:
                twins[target.way(tensor).stored] = name
    there = {found[1] for tensor in base.shapes if (found := layer_of(tensor)) and found[0] == stack}
    repeated = [layer for layer, place in places.items() if first[place] != layer]
    different = [layer for layer in repeated if not _equal(target, stack, layer, first[places[layer]])]
    detail = f"the target's layers are {shown} of the base"
    detail += f"; left out of the base: {_listed(missing)}" if (missing := sorted(there - set(places.values()))) else ""
    detail += f"; repeated in the target, and counted once: {_listed(repeated)}" if repeated else ""
    detail += f"; no longer equal to the first copy: {_listed(different)}" if different else ""
    moved = tuple(name for name in ways if (found := layer_of(name)) and found[0] == stack and name != ways[name].stored)
    operation = Operation(MOVED, moved, detail)
    return replace(target, ways=ways, twins={**target.twins, **twins}, operations=(*target.operations, operation))


def _listed(layers: Sequence[int]) -> str:
    return f"layer{'s' if len(layers) > 1 else ''} {', '.join(map(str, layers))}"


def _equal(target: AlignedCheckpoint, stack: str, one: int, other: int) -> bool:
    pairs = [(name, f"{stack}.{other}.{found[2]}") for name in target.shapes if (found := layer_of(name)) and found[:2] == (stack, one)]
    return all(torch.equal(some_rows(target, name), some_rows(target, twin)) for name, twin in pairs if target.is_weight(name))


def _rows_of_layers(side: Checkpoint, base: Checkpoint, stack: str) -> dict[int, dict[str, Float[Tensor, "k m"]]]:
    """By layer, and by name there, a few rows of each matrix that a layer of the base has in the same shape."""
    shapes = {(found[2], base.shape(name)) for name in matrices(base) if (found := layer_of(name)) and found[0] == stack}
    rows: dict[int, dict[str, Tensor]] = {}
    for name in matrices(side):
        place = layer_of(name)
        if place and place[0] == stack and (place[2], side.shape(name)) in shapes:
            rows.setdefault(place[1], {})[place[2]] = some_rows(side, name)
    return rows


def _nearest(rows: Mapping[str, Tensor], layers: Mapping[int, Mapping[str, Tensor]], same: int) -> int | None:
    """The layer of the base that a layer is; its own number where that is alike."""
    alike = {layer: _alike(rows, others) for layer, others in layers.items()}
    if alike.get(same, 0.0) >= ALIKE:
        return same
    best = max(alike, key=alike.__getitem__)
    return best if alike[best] >= ALIKE else None


def _alike(rows: Mapping[str, Tensor], others: Mapping[str, Tensor]) -> float:
    """The mean cosine of the matrices that both layers have."""
    cosines = [
        float((rows[name] * others[name]).sum() / (rows[name].norm() * others[name].norm()).clamp_min(1e-30))
        for name in rows.keys() & others.keys()
        if rows[name].shape == others[name].shape
    ]
    return sum(cosines) / len(cosines) if cosines else 0.0
