"""Heat maps of a component's coefficient: kinds of modules down, layers across, one scale for all components."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from xml.etree import ElementTree as ET

from unmerge.decomposition.result import Component
from unmerge.report.audit.svg import DEEP, add, drawing, tip
from unmerge.report.identity import called
from unmerge.vectors import OUTSIDE, kind_of, layer_of

#: all cells together are about so wide, each at least and at most so; and so high
_ACROSS, _LEAST, _MOST, _HIGH = 228.0, 9.0, 44.0, 24.0
#: a cell as wide as this holds a number, or the number of its layer
_NUMBER, _LAYER = 32.0, 22.0
#: pixels a letter takes
_LETTER = 6.6


@dataclass(frozen=True)
class Modules:
    """The tensors of a model as rows (kinds) and columns (layers).

    Attributes:
        kinds: of modules, as short as tells them apart.
        layers: their numbers, or names.
        place: (row, column) -> tensors; several where a layer has experts.
        blind: tensors that were not counted.
    """

    kinds: tuple[str, ...]
    layers: tuple[str, ...]
    place: dict[tuple[int, int], list[str]]
    blind: frozenset[str]

    @staticmethod
    def of(tensors: Iterable[str], blind: Iterable[str]) -> Modules:
        """Sort tensors by their names."""
        blind = frozenset(blind)
        named = sorted({*tensors, *blind}, key=_in_order)
        layers, kinds = list(dict.fromkeys(map(layer_of, named))), sorted(dict.fromkeys(map(kind_of, named)))
        place: dict[tuple[int, int], list[str]] = {}
        for tensor in named:
            place.setdefault((kinds.index(kind_of(tensor)), layers.index(layer_of(tensor))), []).append(tensor)
        return Modules(tuple(_short(kinds)), tuple(_last(layer) for layer in layers), place, blind)


def deepest(components: Iterable[Component]) -> float:
    """The largest coefficient of any tensor, 0 without any: one scale for all heat maps."""
    return max((abs(value) for component in components for value in component.by_tensor.values()), default=0.0)


def heat_map(component: Component, modules: Modules, largest: float) -> ET.Element:
    """One component: the coefficient that each module gives by itself.

    Args:
        component: with its coefficient by tensor.
        modules: rows and columns.
        largest: the coefficient drawn darkest.
    """
    wide = min(max(_ACROSS / len(modules.layers), _LEAST), _MOST)
    left, top = 14 + _LETTER * max(map(len, modules.kinds), default=0), 22.0
    title = f"Coefficient of {called(component)} by layer and module"
    described = f"Overall {component.coefficient:.4f}; the table below the figure holds the same values"
    svg = drawing(left + wide * len(modules.layers) + 4, top + _HIGH * len(modules.kinds) + 20, title, described)
    for row, kind in enumerate(modules.kinds):
        add(svg, "text", kind, x=left - 8, y=top + _HIGH * (row + 0.5), class_="label end middle")
    step = 1 if wide >= _LAYER else 4
    for column, layer in itertools.islice(enumerate(modules.layers), 0, None, step):
        add(svg, "text", layer, x=left + wide * (column + 0.5), y=top - 8, class_="label centre")
    add(svg, "text", "layer", x=left + wide * len(modules.layers) / 2, y=top + _HIGH * len(modules.kinds) + 16, class_="label centre faint")
    for (row, column), tensors in modules.place.items():
        _cell(svg, component, modules, tensors, (left + wide * column, top + _HIGH * row), wide, largest, (row, column))
    return svg


def _cell(
    svg: ET.Element,
    component: Component,
    modules: Modules,
    tensors: Sequence[str],
    corner: tuple[float, float],
    wide: float,
    largest: float,
    place: tuple[int, int],
) -> None:
    """One module of one layer; experts of one layer are averaged."""
    values = [component.by_tensor[tensor] for tensor in tensors if tensor in component.by_tensor]
    value = sum(values) / len(values) if values else None
    blind = not values and any(tensor in modules.blind for tensor in tensors)
    depth = min(abs(value) / largest, 1.0) if value is not None and largest else 0.0
    look = "blind" if blind else "none" if value is None else "cold" if value < 0 else "heat"
    rect = add(svg, "rect", x=corner[0] + 1, y=corner[1] + 1, width=wide - 2, height=_HIGH - 2, class_=look, data_at=f"{place[0]} {place[1]}")
    if value is not None:
        rect.set("fill-opacity", f"{depth:.2f}")
        if wide >= _NUMBER:
            shade = " on" if depth > DEEP else ""
            add(svg, "text", f"{value:.2f}", x=corner[0] + wide / 2, y=corner[1] + _HIGH / 2, class_=f"value centre middle{shade}")
    where = tensors[0] if len(tensors) == 1 else f"{len(tensors)} tensors such as {tensors[0]}"
    what = "blind: the target's signal fills it" if blind else "not measured" if value is None else f"{value:.5f}"
    tip(rect, f"{where}: {what}")


def _in_order(tensor: str) -> list[tuple[bool, int, str]]:
    """Numbers in names by size."""
    return [(not part.isdigit(), int(part) if part.isdigit() else 0, part) for part in tensor.split(".")]


def _last(layer: str) -> str:
    return "rest" if layer == OUTSIDE else layer.rpartition(".")[2]


def _short(kinds: Sequence[str]) -> list[str]:
    """Names without the parts that all share: ``model.layers.*.mlp.up_proj.weight`` is ``mlp.up_proj``."""
    cut = [kind.removesuffix(".weight").rpartition("*.")[2] for kind in kinds]
    last = [kind.rpartition(".")[2] for kind in cut]
    return last if len(set(last)) == len(last) else cut if len(set(cut)) == len(cut) else list(kinds)
