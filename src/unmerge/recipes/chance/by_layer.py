"""Random masks under weights that differ by layer (mergekit's gradients): each layer is read by itself, and a pattern runs through them.

What gives it away: no one weight explains the layers together, and each of them is explained alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from unmerge.recipes.by_tensor.patterns import Estimate, Pattern, pattern, relative
from unmerge.recipes.by_tensor.settle import SLACK, snapped
from unmerge.recipes.case import Case
from unmerge.recipes.chance.drawn import Drawn, drawn
from unmerge.recipes.forward import layer_of
from unmerge.recipes.weights import Rule

#: how much weights that are the same in all tensors seem to differ, at most: estimates scatter by 1 to 3%, and gradients that people write
#: differ by half and more between their ends
_EVEN = 0.1


def masks_read(case: Case, atoms: Sequence[str]) -> Drawn | None:
    """A merge with random masks: all layers at once, unless weights differ between them; then layer by layer, where that comes to something."""
    found = drawn(case, atoms)
    if found is not None and found.speaks and found.spread <= _EVEN:
        return found
    layered = drawn_by_layer(case, atoms)
    return layered if layered is not None and layered.speaks else found


def drawn_by_layer(case: Case, atoms: Sequence[str]) -> Drawn | None:
    """Recover a merge with random masks whose weights differ by layer; None as soon as a layer does not speak for one."""
    tensors: dict[int, list[str]] = {}
    for tensor in case.tensors:
        if (layer := layer_of(tensor)) is not None:
            tensors.setdefault(layer, []).append(tensor)
    if len(tensors) < 2:
        return None
    parts: dict[str, Drawn] = {}
    for inside in tensors.values():
        part = drawn(replace(case, tensors=tuple(inside)), atoms)
        if part is None or not part.speaks or any(part.rule is not other.rule for other in parts.values()):
            return None
        parts[inside[0]] = part
    patterns = _patterns(case, atoms, parts)
    return _together(list(parts.values()), [patterns[atom] for atom in atoms]) if patterns else None


def _patterns(case: Case, atoms: Sequence[str], parts: Mapping[str, Drawn]) -> dict[str, Pattern]:
    """The weights of each atom over the layers; empty where no pattern runs through them."""
    found = {atom: {tensor: Estimate(float(part.weights[place]), 0.0) for tensor, part in parts.items()} for place, atom in enumerate(atoms)}
    layers, slack = case.inputs.layers, SLACK[case.dtype]
    if next(iter(parts.values())).rule is Rule.NORMALISED:
        shapes: Mapping[str, Pattern | None] = relative(found, layers, slack)
    else:
        shapes = {atom: pattern(estimates, layers, slack) for atom, estimates in found.items()}
    known = {atom: snapped(case, shape) for atom, shape in shapes.items() if shape is not None}
    return known if len(known) == len(atoms) else {}


def _together(parts: Sequence[Drawn], patterns: Sequence[Pattern]) -> Drawn:
    """One reading of all layers, each counted by the entries of it that tell."""
    counts = torch.tensor([float(part.telling_entries) for part in parts])
    shares = counts / counts.sum()

    def mean(name: str) -> torch.Tensor:
        values = torch.stack([torch.as_tensor(getattr(part, name), dtype=torch.float64) for part in parts])
        return shares.double() @ values.reshape(len(parts), -1)

    return replace(
        parts[0],
        typed=tuple(shape.setting for shape in patterns),
        density=mean("density"),
        epsilon=mean("epsilon"),
        straight=max(part.straight for part in parts),
        acting={tensor: acting for part in parts for tensor, acting in part.acting.items()},
        explained=float(mean("explained")),
        telling=float(mean("telling")),
        telling_entries=int(counts.sum()),
        error=float(mean("error")),
    )
