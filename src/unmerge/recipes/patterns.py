"""Settings that differ from tensor to tensor: a constant, mergekit's gradient over the layers, its filters by module, or both.

    constant    0.5
    gradient    [0, 0.5, 0.3, 0.7, 1]      evenly spaced over the layers, straight lines between; tensors outside of them have the first
    filters     [{"filter": "self_attn", "value": ...}, {"value": ...}]      the first that is part of a tensor's name

From what each tensor says of a setting comes the pattern with the fewest numbers that agrees with all. More numbers than layers
cannot be told from one for each layer, which is what is written then.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from unmerge.recipes.forward import layer_of
from unmerge.recipes.recipe import Setting

#: standard errors that an estimate may be away from a pattern
_AWAY = 6.0
#: a setting this small beside others is none to measure them by
_NO_MEASURE = 1e-2


@dataclass(frozen=True)
class Estimate:
    """What one tensor says of a setting, and the standard error of that."""

    value: float
    error: float


@dataclass(frozen=True)
class Gradient:
    """The numbers of one setting for the tensors that a filter names.

    Attributes:
        filter: part of their names, None for all that are left.
        values: evenly spaced over the layers; a single one is a constant.
        errors: standard errors of the values.
    """

    filter: str | None
    values: tuple[float, ...]
    errors: tuple[float, ...]

    @property
    def setting(self) -> Setting:
        """As mergekit writes it, without the filter."""
        return self.values[0] if len(self.values) == 1 else list(self.values)

    def takes(self, tensor: str) -> bool:
        """Whether the filter names a tensor."""
        return self.filter is None or self.filter in tensor

    def with_value(self, place: int, value: float) -> Gradient:
        """The same with one other value."""
        return replace(self, values=(*self.values[:place], value, *self.values[place + 1 :]))


@dataclass(frozen=True)
class Pattern:
    """A setting for all tensors: the first gradient whose filter names a tensor holds.

    Attributes:
        gradients: the last one takes all that is left.
        last: the filter that the last one would have, were anything else left.
    """

    gradients: tuple[Gradient, ...]
    last: str | None = None

    @property
    def setting(self) -> Setting:
        """As mergekit writes it."""
        if len(self.gradients) == 1 and self.gradients[0].filter is None:
            return self.gradients[0].setting
        filters = ({"filter": part.filter} if part.filter is not None else {} for part in self.gradients)
        return [{**name, "value": part.setting} for name, part in zip(filters, self.gradients, strict=True)]

    @property
    def numbers(self) -> tuple[float, ...]:
        """All values, one gradient after the other."""
        return tuple(value for part in self.gradients for value in part.values)

    @property
    def places(self) -> tuple[tuple[int, int], ...]:
        """Gradient and place of each of the numbers."""
        return tuple((part, place) for part, gradient in enumerate(self.gradients) for place in range(len(gradient.values)))

    def holding(self, tensor: str) -> int | None:
        """Which gradient holds for a tensor."""
        return next((number for number, part in enumerate(self.gradients) if part.takes(tensor)), None)

    def with_number(self, part: int, place: int, value: float) -> Pattern:
        """The same with another value in one place."""
        changed = self.gradients[part].with_value(place, value)
        return replace(self, gradients=(*self.gradients[:part], changed, *self.gradients[part + 1 :]))

    def with_numbers(self, values: Sequence[float]) -> Pattern:
        """The same with other values throughout."""
        pattern = self
        for (part, place), value in zip(self.places, values, strict=True):
            pattern = pattern.with_number(part, place, value)
        return pattern

    def with_rest(self, value: float) -> Pattern:
        """The same with a value for all that no filter names, the last one's included."""
        last = replace(self.gradients[-1], filter=self.last)
        return Pattern((*self.gradients[:-1], last, Gradient(None, (value,), (0.0,))))


def influence(knots: int, layers: int) -> np.ndarray:
    """(layers, knots) how much each of several evenly spaced values counts in each layer."""
    if knots == 1:
        return np.ones((layers, 1))
    where = np.linspace(0.0, knots - 1.0, layers) if layers > 1 else np.array([knots - 1.0])
    near: np.ndarray = np.maximum(1 - np.abs(where[:, None] - np.arange(knots)), 0.0)
    return near


def pattern(estimates: Mapping[str, Estimate], layers: int, slack: float) -> Pattern | None:
    """The pattern with the fewest numbers that agrees with what the tensors say; None where none does.

    Args:
        estimates: by tensor; those that do not tell are left out.
        layers: how many the model has.
        slack: how far estimates may be off beside their standard errors, relative to the largest.
    """
    known = {tensor: estimate for tensor, estimate in estimates.items() if np.isfinite(estimate.error)}
    if not known:
        return None
    slack *= max(abs(estimate.value) for estimate in known.values())
    for named in (_everything, _block, _module):
        names = {tensor: named(tensor) for tensor in known}
        found = [
            _gradient(name, {tensor: known[tensor] for tensor in known if names[tensor] == name}, layers, slack)
            for name in dict.fromkeys(names.values())
        ]
        if all(part is not None for part in found):
            return _folded([part for part in found if part is not None], slack)
    return None


def relative(estimates: Mapping[str, Mapping[str, Estimate]], layers: int, slack: float) -> dict[str, Pattern]:
    """Patterns of several settings that are known up to a factor, tensor by tensor; empty where there are none.

    With their sum, or with one of them, as the measure: what takes the fewest numbers.

    Args:
        estimates: by setting and tensor, all of the same tensors.
        layers: how many the model has.
        slack: see ``pattern``.
    """
    found: dict[str, Pattern] = {}
    for unit in (None, *estimates):
        measured: dict[str, dict[str, Estimate]] = {name: {} for name in estimates}
        for tensor in next(iter(estimates.values()), {}):
            values = {name: by_tensor[tensor].value for name, by_tensor in estimates.items()}
            measure = sum(values.values()) if unit is None else values[unit]
            if abs(measure) <= _NO_MEASURE * max(map(abs, values.values())):
                break
            for name, value in values.items():
                measured[name][tensor] = Estimate(value / measure, estimates[name][tensor].error / abs(measure))
        else:
            patterns = {name: pattern(by_tensor, layers, slack) for name, by_tensor in measured.items()}
            known = {name: shape for name, shape in patterns.items() if shape is not None}
            if len(known) == len(patterns) and (not found or _size(known) < _size(found)):
                found = known
    return found


def _size(patterns: Mapping[str, Pattern]) -> int:
    return sum(len(shape.numbers) for shape in patterns.values())


def _everything(_: str) -> None:
    return None


def _block(tensor: str) -> str:
    """``self_attn`` of ``model.layers.0.self_attn.q_proj.weight``."""
    return _inside(tensor)[0]


def _module(tensor: str) -> str:
    """``q_proj`` of ``model.layers.0.self_attn.q_proj.weight``."""
    parts = _inside(tensor)
    return parts[-2] if len(parts) > 1 else parts[0]


def _inside(tensor: str) -> list[str]:
    layer = layer_of(tensor)
    return tensor.split(".") if layer is None else tensor.partition(f".{layer}.")[2].split(".")


def _gradient(name: str | None, estimates: Mapping[str, Estimate], layers: int, slack: float) -> Gradient | None:
    """The fewest evenly spaced values that agree with all estimates."""
    rows = np.array([layer_of(tensor) or 0 for tensor in estimates])
    values = np.array([estimate.value for estimate in estimates.values()])
    errors = np.array([estimate.error for estimate in estimates.values()])
    errors = np.maximum(errors, slack / 10 + 1e-300)
    for knots in range(1, layers + 1):
        known = influence(knots, layers)
        seen = known[np.unique(rows)].max(0) > 0
        weighed = known[rows][:, seen] / errors[:, None]
        if np.linalg.matrix_rank(weighed) < seen.sum():
            continue
        found = np.linalg.lstsq(weighed, values / errors, rcond=None)[0]
        off = np.abs(known[rows][:, seen] @ found - values)
        if (off <= _AWAY * errors + slack).all():
            spread = np.sqrt(np.linalg.inv(weighed.T @ weighed).diagonal())
            places, every = np.flatnonzero(seen), np.arange(knots)
            return Gradient(name, tuple(map(float, np.interp(every, places, found))), tuple(map(float, np.interp(every, places, spread))))
    return None


def _folded(parts: list[Gradient], slack: float) -> Pattern:
    """Filters with the same values as the most common one need no name; what is left comes last."""

    def alike(one: Gradient, other: Gradient) -> bool:
        pairs = zip(one.values, other.values, one.errors, other.errors, strict=True)
        return len(one.values) == len(other.values) and all(abs(a - b) <= _AWAY * (e + f) + slack for a, b, e, f in pairs)

    counts = [sum(alike(part, other) for other in parts) for part in parts]
    rest = max(range(len(parts)), key=lambda number: (counts[number], number))
    named = [part for part in parts if not alike(part, parts[rest])]
    return Pattern((*named, replace(parts[rest], filter=None)), parts[rest].filter if counts[rest] == 1 else None)
