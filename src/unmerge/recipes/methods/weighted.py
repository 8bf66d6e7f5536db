"""What methods have in common that weigh models along an arc: several ways to read the weights off, of which the likely ones are searched."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from unmerge.recipes.case import Case
from unmerge.recipes.combination import Lines
from unmerge.recipes.patterns import pattern, relative
from unmerge.recipes.polish import plausible
from unmerge.recipes.recipe import Recipe
from unmerge.recipes.settle import SLACK, Build, Patterns, Reading, read_off, settled, settled_scale

#: a way whose first look gives this much fewer identical weights than the best one is not searched, and at most so many are
_WORSE, _MOST = 0.1, 2


@dataclass(frozen=True)
class Way:
    """A variant of a method.

    Attributes:
        build: patterns of the atoms' weights become a recipe.
        reading: a tensor's combination becomes the weights.
        lines: what has coefficients of its own.
        scale_free: whether a common factor of the weights does not act.
    """

    build: Build
    reading: Reading
    lines: Lines = Lines.WHOLE
    scale_free: bool = True

    def patterns(self, case: Case, atoms: Sequence[str], tensors: Sequence[str] | None = None) -> Patterns:
        """The weights that some tensors speak for, empty where they disagree."""
        found = read_off(case, atoms, atoms, self.reading, self.lines, tensors)
        if self.scale_free:
            return relative(found, case.inputs.layers, SLACK[case.dtype])
        shapes = {atom: pattern(values, case.inputs.layers, SLACK[case.dtype]) for atom, values in found.items()}
        known = {atom: shape for atom, shape in shapes.items() if shape is not None}
        return known if len(known) == len(shapes) else {}


def weighted(case: Case, atoms: Sequence[str], ways: Iterable[Way]) -> Iterator[Recipe]:
    """The recipes of the likeliest variants, weights as short decimals."""
    shares: dict[Way, float] = {}
    for way in ways:
        if (first := way.patterns(case, atoms, case.quick)) and plausible(case, way.build(first)):
            shares[way] = case.identical(way.build(first), case.quick)
    likely = sorted(shares, key=lambda way: -shares[way])[:_MOST]
    for way in shares:
        if way in likely and shares[way] >= shares[likely[0]] - _WORSE and (patterns := way.patterns(case, atoms)):
            yield (settled_scale if way.scale_free else settled)(case, way.build, patterns)
