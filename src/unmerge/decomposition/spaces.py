"""Spaces: at which weights a method looks, and whether it sees them all at once. Every method runs in every space.

exact        all weights, as one problem. Nothing is expanded.
layer        each layer by itself (the proposal's per-layer basis), all its weights.
nonzero      the weights that the target changes; an adapter changes all, a merge in 16 bits or with trimming does not.
compressed   about 100,000 weights with the largest |dW| in the dictionary (Phase 3); the same for every target.

A space is the inner products that a method gets and the way in which it is asked; methods do not know which space they are in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from unmerge.decomposition.blocks import problem_of, rows_by
from unmerge.decomposition.mask import ENTRIES, mask
from unmerge.solvers import LAYERS, Solution, Solver
from unmerge.vectors import ChangedWeights, Gram, MaskedWeights, TaskVector, gram, layer_of

Watch = Callable[[Iterable[str]], Iterable[str]]
Products = Callable[[Sequence[TaskVector], TaskVector, Watch], Gram]


@dataclass(frozen=True)
class Space:
    """Where a method looks.

    Attributes:
        products: reads atoms and target, and takes the inner products over the weights that count. ``gram`` itself where all do.
        solve: asks a method.
        parts: the inner products that make a problem each.
    """

    products: Products
    solve: Callable[[Solver, Gram], Solution]
    parts: Callable[[Gram], list[Gram]]


def at_once(solver: Solver, products: Gram) -> Solution:
    """One problem over all tensors."""
    return solver(problem_of(products))


def layer_by_layer(solver: Solver, products: Gram) -> Solution:
    """One problem for each layer, and one for what is outside the layers; then one answer for each atom.

    The coefficient is the mean over layers, weighted by the share of the atom's squared norm that lies in each: what the layers add
    up to, projected on the atom. Named as by any method: contributions of at least a tenth of the target's norm.
    """
    problem = problem_of(products)
    answers = {layer: at_once(solver, products.only(rows)) for layer, rows in rows_by(layer_of, products).items()}
    by_block = np.array([answer.coefficients for answer in answers.values()]).reshape(-1, problem.size)
    violations = {layer: answer.violation for layer, answer in answers.items() if answer.violation is not None}
    worst = max(violations, key=violations.__getitem__, default=next(iter(answers), None))
    return problem.answer(
        problem.shares(problem.blocks(LAYERS).combined(by_block)),
        violation=max(violations.values(), default=None),
        steps=sum(answer.steps for answer in answers.values()),
        stopped=f"{len(answers)} layers; {worst}: {answers[worst].stopped}" if worst is not None else "there are no layers",
        by_block=by_block,
    )


def whole(products: Gram) -> list[Gram]:
    """All tensors together."""
    return [products]


def layers(products: Gram) -> list[Gram]:
    """Each layer, and what is outside the layers."""
    return [products.only(rows) for rows in rows_by(layer_of, products).values()]


def _nonzero(atoms: Sequence[TaskVector], target: TaskVector, watch: Watch) -> Gram:
    return gram(atoms, target, watch, ChangedWeights())


def _compressed(atoms: Sequence[TaskVector], target: TaskVector, watch: Watch) -> Gram:
    return gram(atoms, target, watch, MaskedWeights(mask(atoms, ENTRIES, watch)))


#: every space, by the name that ``--space`` takes
SPACES: dict[str, Space] = {
    "exact": Space(gram, at_once, whole),
    "layer": Space(gram, layer_by_layer, layers),
    "nonzero": Space(_nonzero, at_once, whole),
    "compressed": Space(_compressed, at_once, whole),
}
