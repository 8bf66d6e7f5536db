"""The targets of a study: drawn from a seed, with the composition and the coefficients that are to be found again."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from unmerge.core.records import fingerprint
from unmerge_lab.studies.design import StudyDesign, Zoo

#: where targets lie, and in the folder of one that was made beforehand: what is in it
TARGETS, TARGET = "targets", "target.json"
#: the weight of components that are weighted alike, and the range of weights that differ, drawn in hundredths
EQUAL, LEAST, MOST = 0.7, 0.3, 1.0
#: merges in which every entry of a task vector has the same coefficient, at least in the mean; under ties an entry's depends on
#: which other components agree with it in sign
_LINEAR = ("task_arithmetic", "linear", "dare_linear", "cat", "svd", "extract")
#: dtypes of adapters as targets: PEFT combines in float32; the extracted one comes from a merge in bfloat16
_ADAPTER_DTYPES = {"cat": "float32", "svd": "float32", "extract": "bfloat16"}


@dataclass(frozen=True)
class Target:
    """A target to be made and decomposed.

    Attributes:
        group: known, mixed or unknown.
        merge: a merge method, or a kind of adapter.
        is_adapter: whether it is an adapter, not a checkpoint.
        dtype: of the checkpoint, or of the sums that make the adapter.
        seed: of the draw and of mergekit's masks.
        repeat: counts the targets that are alike in all of these.
        weighting: equal or unequal.
        density: of a merge; None for the method's own.
        rank: of an adapter.
        weights: of every component, as the recipe says.
        known: the components that are in the dictionary.
    """

    group: str
    merge: str
    is_adapter: bool
    dtype: str
    seed: int
    repeat: int
    weighting: str
    weights: dict[str, float]
    known: tuple[str, ...]
    density: float | None = None
    rank: int | None = None

    @property
    def name(self) -> str:
        return "-".join((self.group, self.merge, self.dtype, str(self.seed), str(self.repeat)))

    def acted(self) -> dict[str, float] | None:
        """The coefficients that acted on the known components; None where a component has not one but many.

        task_arithmetic and dare_linear: the weight, which mergekit rounds to the merge's dtype. linear: the weight over the sum of
        all, in float32. Adapters: the weight; of an extracted one, that of the merge it was extracted from.
        """
        if self.merge not in _LINEAR:
            return None
        total = sum(self.weights.values())
        acted = {}
        for name in self.known:
            weight = self.weights[name]
            acted[name] = weight / total if self.merge == "linear" else float(torch.tensor(weight, dtype=getattr(torch, self.dtype)))
        return acted


def targets(design: StudyDesign, zoo: Zoo) -> list[Target]:
    """Every target of a design. How many components and how they are weighted goes round; which, and with which weights, is drawn."""
    return list(itertools.chain.from_iterable(_of_group(group, design, zoo) for group in design.groups))


def _of_group(group: str, design: StudyDesign, zoo: Zoo) -> Iterator[Target]:
    sorts: list[tuple[str, str, float | None, int | None]] = [
        (merge, dtype, settings.density, None) for merge, settings in design.merges.items() for dtype in design.dtypes
    ]
    sorts += [(kind, _ADAPTER_DTYPES[kind], None, settings.rank) for kind, settings in design.adapters.items()]
    drawn = itertools.product(sorts, range(design.repeats), design.seeds)
    for place, ((merge, dtype, density, rank), repeat, seed) in enumerate(drawn):
        count = design.components[place % len(design.components)]
        weighting = design.weights[place // len(design.components) % len(design.weights)]
        rng = np.random.default_rng(int(fingerprint([group, merge, dtype, seed, repeat])[:15], 16))
        inside = {"known": count, "mixed": count // 2 + int(rng.integers(2)) * (count % 2), "unknown": 0}[group]
        known = tuple(map(str, rng.permutation(zoo.known)[:inside]))
        names = (*known, *map(str, rng.permutation(zoo.unknown)[: count - inside]))
        values = rng.uniform(LEAST, MOST, count).round(2) if weighting == "unequal" else np.full(count, EQUAL)
        weights = dict(zip(names, values.tolist(), strict=True))
        yield Target(group, merge, merge in _ADAPTER_DTYPES, dtype, seed, repeat, weighting, weights, known, density, rank)
