"""The targets that `unmerge recover` is measured on: configurations of mergekit and calls of PEFT, drawn from seeds.

What is published was measured on seeds from 9900 on, which were used for nothing else.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

#: targets of each method, of each kind of adapter, and of each merge with unknown components
EACH, EACH_ADAPTER, EACH_MIXED = 8, 8, 8
DTYPES = ("bfloat16", "float32")
WEIGHTINGS = ("equal", "two decimals", "four decimals", "many digits")
BASE = "base"
#: targets that no recipe makes: trained on all weights, one unknown adapter, merges of unknown ones, noise
NOTHING = {"full fine-tune": 20, "unknown adapter": 10, "unknown merge": 20, "noise": 10}
ADAPTERS = ("linear", "cat", "svd", "ties", "ties_svd", "dare_linear", "dare_ties", "magnitude_prune")
MIXED = ("task_arithmetic", "linear", "ties", "breadcrumbs", "dare_linear", "dare_ties", "della_linear")


@dataclass(frozen=True)
class Wanted:
    """A target to make and to take apart.

    Attributes:
        group: known, mixed, nothing or adapter.
        method: mergekit's, PEFT's combination type, or a key of NOTHING.
        dtype: of the merge.
        seed: of the draw, and of masks.
        weighting: how the weights were drawn.
        inputs: settings by model; the base is called BASE.
        base: the model that mergekit takes changes from; None where there is none.
        shared: settings of the merge as a whole.
        unknown: the inputs that are not in the dictionary.
        slices: (model, first layer, end) of a passthrough of layers.
    """

    group: str
    method: str
    dtype: str
    seed: int
    weighting: str = "equal"
    inputs: dict[str, dict[str, Any]] = field(default_factory=dict)
    base: str | None = BASE
    shared: dict[str, Any] = field(default_factory=dict)
    unknown: tuple[str, ...] = ()
    slices: tuple[tuple[str, int, int], ...] = ()

    @property
    def name(self) -> str:
        return f"{self.group}-{self.method.replace(' ', '-')}-{self.dtype}-{self.seed}"


@dataclass(frozen=True)
class Draw:
    """What a method's settings are drawn from.

    Attributes:
        rng: the generator.
        names: models, in order.
        weights: one for each.
        place: counts a method's targets.
        layers: of the base.
    """

    rng: np.random.Generator
    names: tuple[str, ...]
    weights: tuple[float, ...]
    place: int
    layers: int

    def weighted(self, **more: Callable[[], float]) -> dict[str, dict[str, Any]]:
        """Every model with its weight and further settings: the same for all, or for every other target each its own."""
        common = {key: value() for key, value in more.items()}
        own = [{key: value() for key, value in more.items()} for _ in self.names]
        chosen = own if self.place % 2 else [common] * len(self.names)
        return {name: {"weight": weight, **settings} for name, weight, settings in zip(self.names, self.weights, chosen, strict=True)}

    def share(self, low: float, high: float) -> Callable[[], float]:
        """Draws two decimals."""
        return lambda: round(float(self.rng.uniform(low, high)), 2)

    @property
    def density(self) -> Callable[[], float]:
        """Densities; .5 for every third target, where decoys are asked for."""
        return (lambda: 0.5) if self.place % 3 == 0 else self.share(0.1, 0.9)


Settings = dict[str, Any]


def _plain(draw: Draw) -> Settings:
    return {"inputs": draw.weighted()}


def _dense(draw: Draw) -> Settings:
    return {"inputs": draw.weighted(density=draw.density)}


def _banded(draw: Draw) -> Settings:
    return {"inputs": draw.weighted(density=draw.share(0.1, 0.85), gamma=draw.share(0.01, 0.06))}


def _sloped(draw: Draw) -> Settings:
    density = (lambda: 0.5) if draw.place % 3 == 0 else draw.share(0.3, 0.7)
    return {"inputs": draw.weighted(density=density)}


def _bare(draw: Draw, **shared: Any) -> Settings:
    return {"inputs": {name: {} for name in draw.names}, "shared": shared}


def _without_base(settings: Settings, draw: Draw) -> Settings:
    """From the base every other time; mergekit refuses more than two models where one tensor of them all is the base's."""
    return settings if draw.place % 4 < 2 and len(draw.names) == 2 else {**settings, "base": None}


def _of_two(draw: Draw, **shared: Any) -> Settings:
    """One of the two is what mergekit calls the base: a fine-tune, or for every fourth target the base itself."""
    first = BASE if draw.place % 4 == 3 else draw.names[0]
    return {"inputs": {first: {}, draw.names[1]: {}}, "base": first, "shared": shared}


def _slerp(draw: Draw) -> Settings:
    value = draw.share(0.1, 0.9)
    t: Any = value()
    if draw.place % 4 == 2:
        t = [{"filter": "self_attn", "value": [0, 0.5, 0.3, 1]}, {"filter": "mlp", "value": [1, 0.5, 0.7, 0]}, {"value": value()}]
    return _of_two(draw, t=t)


def _passthrough(draw: Draw) -> Settings:
    """Layers of several models, one after the other; some twice, some not at all."""
    models = [*draw.names, BASE]
    cuts = sorted(draw.rng.choice(np.arange(1, draw.layers), 2, replace=False).tolist())
    parts = list(itertools.pairwise([0, *cuts, draw.layers]))
    if draw.place % 2:
        parts.insert(1, (cuts[0] - 1, cuts[1]))
    slices = [(models[number % len(models)], first, end) for number, (first, end) in enumerate(parts)]
    return {"base": None, "slices": tuple(slices)}


#: how each method's settings are drawn, and the most models it takes
METHODS: dict[str, tuple[Callable[[Draw], Settings], int]] = {
    "linear": (lambda draw: {**_plain(draw), "base": None}, 5),
    "task_arithmetic": (_plain, 5),
    "ties": (_dense, 5),
    "dare_linear": (_dense, 5),
    "dare_ties": (_dense, 5),
    "breadcrumbs": (_banded, 5),
    "breadcrumbs_ties": (_banded, 5),
    "della": (_sloped, 5),
    "della_linear": (_sloped, 5),
    "slerp": (_slerp, 2),
    "nuslerp": (lambda draw: _without_base(_plain(draw), draw), 2),
    "multislerp": (lambda draw: _without_base(_plain(draw), draw), 5),
    "karcher": (lambda draw: {**_bare(draw), "base": None}, 5),
    "sce": (lambda draw: _bare(draw, select_topk=draw.share(0.1, 0.9)()), 5),
    "model_stock": (lambda draw: _bare(draw, filter_wise=draw.place % 4 == 3), 5),
    "arcee_fusion": (_of_two, 2),
    "nearswap": (lambda draw: _of_two(draw, t=round(float(10 ** draw.rng.uniform(-4.3, -3)), 5)), 2),
    "ram": (lambda draw: _bare(draw, epsilon=float(10.0 ** -draw.rng.integers(4, 6))), 5),
    "ramplus_tl": (lambda draw: _bare(draw, r=draw.share(0.1, 0.5)(), alpha=draw.share(0.1, 0.4)()), 5),
    "passthrough": (_passthrough, 2),
}


def targets(known: Sequence[str], unknown: Sequence[str], layers: int, first: int) -> Iterator[Wanted]:
    """Every target, in an order that mixes methods: a run that is cut short has seen them all.

    Args:
        known: names of the dictionary's adapters.
        unknown: names of others.
        layers: of the base.
        first: seed of every method's first target; the next ones have the next seeds.
    """
    yield from _merges(known, layers, first)
    yield from _mixed(known, unknown, layers, first)
    yield from _adapters(known, first)
    yield from _nothing(unknown, first)


def _merges(known: Sequence[str], layers: int, first: int) -> Iterator[Wanted]:
    for place, (method, (settings, most)) in itertools.product(range(EACH), METHODS.items()):
        draw, seed = _drawn(known, (), method, place, most, layers, first)
        yield Wanted("known", method, DTYPES[place % 2], seed, _weighting(place), **settings(draw))


def _mixed(known: Sequence[str], unknown: Sequence[str], layers: int, first: int) -> Iterator[Wanted]:
    for place, method in itertools.product(range(EACH_MIXED), MIXED):
        draw, seed = _drawn(known, unknown, method, 100 + place, 5, layers, first)
        strangers = tuple(name for name in draw.names if name in unknown)
        yield Wanted("mixed", method, DTYPES[place % 2], seed, _weighting(place), **METHODS[method][0](draw), unknown=strangers)


def _adapters(known: Sequence[str], first: int) -> Iterator[Wanted]:
    for place, kind in itertools.product(range(EACH_ADAPTER), ADAPTERS):
        draw, seed = _drawn(known, (), f"peft {kind}", place, 4, 0, first)
        density = {} if kind in ("linear", "cat", "svd") else {"density": draw.density()}
        yield Wanted("adapter", kind, "float32", seed, _weighting(place), draw.weighted(), shared=density)


def _nothing(unknown: Sequence[str], first: int) -> Iterator[Wanted]:
    for kind, count in NOTHING.items():
        for place in range(count):
            method = list(MIXED)[place % len(MIXED)]
            draw, seed = _drawn(unknown, (), kind, place, 4, 0, first)
            if kind == "unknown adapter":
                inputs: dict[str, dict[str, Any]] = {unknown[place % len(unknown)]: {"weight": 1.0}}
            else:
                inputs = METHODS[method][0](draw)["inputs"] if kind == "unknown merge" else {}
            shared = {"method": method if kind == "unknown merge" else "task_arithmetic"}
            base = None if shared["method"] == "linear" else BASE
            yield Wanted("nothing", kind, DTYPES[place % 2], seed, "", inputs, base, shared, tuple(inputs))


def _weighting(place: int) -> str:
    return WEIGHTINGS[(place + place // 4) % len(WEIGHTINGS)]


def _drawn(known: Sequence[str], unknown: Sequence[str], method: str, place: int, most: int, layers: int, first: int) -> tuple[Draw, int]:
    """How many models goes round from two to the most; which, and their weights, are drawn."""
    seed = first + place
    rng = np.random.default_rng([seed, *map(ord, method)])
    count = 2 + (place + place // 2) % (most - 1)
    names = rng.permutation(known)[:count].tolist()
    if unknown:
        names = [*names[: (count + 1) // 2], *rng.permutation(unknown)[: max(count // 2, 1)].tolist()]
    low, high = 0.2, 1.2
    values = rng.uniform(low, high, len(names))
    weighting = _weighting(place)
    decimals = {"two decimals": 2, "four decimals": 4}.get(weighting)
    if weighting == "equal":
        values = np.full(len(names), values[0].round(2))
    elif decimals is not None:
        values = values.round(decimals)
    return Draw(rng, tuple(names), tuple(values.tolist()), place, layers), seed
