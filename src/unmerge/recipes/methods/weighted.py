"""What methods have in common that weigh models along an arc: several ways to read the weights off, of which the likely ones are searched."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from unmerge.recipes.case import Case
from unmerge.recipes.combination import Lines
from unmerge.recipes.patterns import pattern, relative
from unmerge.recipes.polish import DONE, best, ordered, plausible
from unmerge.recipes.recipe import Recipe
from unmerge.recipes.settle import SLACK, Build, Patterns, Reading, read_off, scales, settled, settled_scale, snapped

#: a way whose first look gives this much fewer identical weights than the best one is not searched, and at most so many are
_WORSE, _MOST = 0.1, 2
#: scales of the weights that are put into every order
_SCALES = 3


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

    def patterns(self, case: Case, atoms: Sequence[str], models: Sequence[str], tensors: Sequence[str] | None = None) -> Patterns:
        """The weights of some models that tensors speak for, empty where they disagree."""
        found = read_off(case, atoms, models, self.reading, self.lines, tensors)
        if self.scale_free:
            return relative(found, case.inputs.layers, SLACK[case.dtype])
        shapes = {atom: pattern(values, case.inputs.layers, SLACK[case.dtype]) for atom, values in found.items()}
        known = {atom: snapped(case, shape) for atom, shape in shapes.items() if shape is not None}
        return known if len(known) == len(shapes) else {}


def weighted(case: Case, atoms: Sequence[str], ways: Iterable[Way], models: Sequence[str] | None = None) -> Iterator[Recipe]:
    """The recipes of the likeliest variants, weights as short decimals.

    Args:
        case: target and models.
        atoms: what tensors are combinations of.
        ways: the variants.
        models: what is weighed, the atoms by default.
    """
    models = atoms if models is None else models
    shares: dict[Way, float] = {}
    for way in ways:
        if (first := way.patterns(case, atoms, models, case.quick)) and plausible(case, way.build(first)):
            shares[way] = case.identical(way.build(first), case.quick)
    likely = sorted(shares, key=lambda way: -shares[way])[:_MOST]
    for way in shares:
        if way in likely and shares[way] >= shares[likely[0]] - _WORSE and (patterns := way.patterns(case, atoms, models)):
            recipe = (settled_scale if way.scale_free else settled)(case, way.build, patterns)
            yield recipe if len(models) == 2 or case.identical(recipe, case.quick) >= DONE else _put_in_order(case, way, patterns, recipe)


def _put_in_order(case: Case, way: Way, patterns: Patterns, recipe: Recipe) -> Recipe:
    """Weights and order at once: sums of three and more models depend on their order, and so does the scale that seems best."""
    tried = [recipe, *(way.build(found) for found in itertools.islice(scales(case, patterns), _SCALES))]
    return best(case, (ordered(case, other, case.quick[-1:]) for other in tried[: None if way.scale_free else 1]), case.quick)
