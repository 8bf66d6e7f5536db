"""What methods have in common that weigh models along an arc: several ways to read the weights off, of which the likely ones are searched."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from unmerge.recipes.by_tensor.combination import Lines
from unmerge.recipes.by_tensor.grid import on_grid
from unmerge.recipes.by_tensor.patterns import pattern, relative
from unmerge.recipes.by_tensor.settle import SLACK, Build, Patterns, Reading, read_off, scales, settled, settled_scale, snapped
from unmerge.recipes.case import Case
from unmerge.recipes.decimals import scaled
from unmerge.recipes.polish import DONE, best, ordered, plausible
from unmerge.recipes.recipe import Recipe

#: a way whose first look gives this much fewer identical weights than the best one is not searched, and at most so many are
_WORSE, _MOST = 0.3, 2
#: a share of identical weights below which another order will not help in 16 bits: it is another method
_HOPEFUL = 0.25
#: scales that are put into every order
_TOGETHER = 8


@dataclass(frozen=True)
class Way:
    """A variant of a method.

    Attributes:
        build: patterns of the atoms' weights become a recipe.
        reading: a tensor's combination becomes the weights.
        lines: what has coefficients of its own.
        scale_free: whether a common factor of the weights does not act.
        rounded: where the method rounds weights to the dtype of the merge, the variant that does not scale them first.
    """

    build: Build
    reading: Reading
    lines: Lines = Lines.WHOLE
    scale_free: bool = True
    rounded: Build | None = None

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
            share = case.identical(recipe, case.quick)
            if share < DONE and way.rounded is not None and case.computed.itemsize == 2:
                recipe = _on_grid(case, way, way.rounded, patterns)
                share = case.identical(recipe, case.quick)
            hopeless = case.dtype.itemsize == 2 and share < _HOPEFUL
            yield recipe if share >= DONE or hopeless else _put_in_order(case, way, patterns, recipe)


def _on_grid(case: Case, way: Way, rounded: Build, patterns: Patterns) -> Recipe:
    """Weights as the dtype has them, and short decimals in their ratios where their sum does not act."""
    found = on_grid(case, rounded, patterns)
    if not way.scale_free:
        return way.build(found)
    half = torch.finfo(case.dtype).eps / 2
    return best(case, (way.build(tried) for tried in scales(case, found, half)), case.quick)


def _put_in_order(case: Case, way: Way, patterns: Patterns, recipe: Recipe) -> Recipe:
    """The order of the inputs, then the weights again, and the order once more: sums of three and more models depend on both."""
    names = [model.model for model in ordered(case, recipe, case.quick[-1:]).inputs]

    def build(found: Patterns) -> Recipe:
        made = way.build(found)
        return replace(made, inputs=tuple(sorted(made.inputs, key=lambda model: names.index(model.model))))

    found = ordered(case, (settled_scale if way.scale_free else settled)(case, build, patterns), case.quick[-1:])
    if not way.scale_free or case.identical(found, case.quick) >= DONE:
        return found
    # in the wrong order the right scale does not show, nor the right order at the wrong scale
    weights = [model.parameters["weight"] for model in found.inputs]
    if not all(isinstance(weight, float) for weight in weights):
        return found
    tried = (_weighing(found, values) for values in itertools.islice(scaled(weights, SLACK[case.dtype] / 2), _TOGETHER))
    return best(case, (ordered(case, recipe, case.quick[:1]) for recipe in tried), case.quick, start=found)


def _weighing(recipe: Recipe, weights: Sequence[float]) -> Recipe:
    """The recipe with other weights."""
    for model, weight in zip(recipe.inputs, weights, strict=True):
        recipe = recipe.with_input(model.model, weight=weight)
    return recipe
