"""Decompose a target's task vector over a dictionary."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

import numpy as np

from unmerge.checkpoints import Checkpoint, Difference
from unmerge.core.errors import BadInput
from unmerge.core.records import environment
from unmerge.decomposition.base_check import check_base, check_names
from unmerge.decomposition.blocks import problem_of
from unmerge.decomposition.dictionary import Dictionary, Vector
from unmerge.decomposition.result import Absent, Component, Decomposition, SkippedTensor, SolverReport, Unexplained
from unmerge.decomposition.spaces import SPACES
from unmerge.solvers import SOLVERS, Problem, Solution
from unmerge.vectors import Gram, gram

DEFAULT_METHOD, DEFAULT_SPACE = "nnls", "exact"


def decompose(
    target: Vector,
    dictionary: Dictionary,
    base: Checkpoint | None = None,
    method: str = DEFAULT_METHOD,
    watch: Callable[[Iterable[str]], Iterable[str]] = iter,
    space: str = DEFAULT_SPACE,
) -> Decomposition:
    """Explain a target by a sparse, non-negative combination of known task vectors.

    Args:
        target: an adapter, or a checkpoint minus the base.
        dictionary: the atoms.
        base: the base, where one was given; for checks and for the record.
        method: a name in ``unmerge.solvers.SOLVERS``.
        watch: wraps the loop over tensors, for a progress bar.
        space: where the method looks, a name in ``unmerge.decomposition.spaces.SPACES``. Errors and shares are of all weights anyway.

    Returns:
        Components with coefficients, what is absent, what is unexplained, and how far to trust it.

    Raises:
        BadInput: an unknown method or space, a zero atom, or a target equal to its base.
    """
    if method not in SOLVERS:
        raise BadInput(expected=f"one of {', '.join(SOLVERS)}", found=method, where="--method", hint="choose one of them")
    if space not in SPACES:
        raise BadInput(expected=f"one of {', '.join(SPACES)}", found=space, where="--space", hint="choose one of them")
    started = time.monotonic()
    products = gram(dictionary.atoms, target, watch)
    problem = problem_of(products)
    _refuse_zero(problem, target, dictionary)
    looks = SPACES[space]
    seen = products if looks.products is gram else looks.products(dictionary.atoms, target, watch)
    solution = looks.solve(SOLVERS[method], seen)
    error = problem.residual_squared(solution.coefficients) / problem.norm_squared
    base_check = check_base(target, products) if isinstance(target, Difference) else None
    warnings = check_names(base, [target, *dictionary.atoms])
    warnings += [f"{entry} is neither an adapter nor a checkpoint and was ignored" for entry in dictionary.ignored]
    if base_check and base_check.suspicious:
        warnings.append(base_check.warning())
    named, absent = _sort(problem, solution, dictionary)
    return Decomposition(
        method=method,
        space=space,
        target=target.source(),
        base=base.source() if base else None,
        dictionary={atom.name: atom.source() for atom in dictionary.atoms},
        components=named,
        absent=absent,
        unexplained=Unexplained(share=error),
        reconstruction_error=float(np.sqrt(error)),
        reconstruction_error_in_space=_error_in_space(seen, solution),
        one_minus_cosine_squared=_one_minus_cosine_squared(problem, solution),
        condition_number=problem_of(seen).condition(),
        norm=float(np.sqrt(problem.norm_squared)),
        tensors=_used(seen),
        entries=int(seen.entries.sum()),
        solver=SolverReport(violation=solution.violation, steps=solution.steps, stopped=solution.stopped),
        skipped=[SkippedTensor(tensor=skip.tensor, reason=skip.reason) for skip in products.skipped],
        base_check=base_check,
        warnings=warnings,
        seconds=round(time.monotonic() - started, 3),
        environment=environment(),
    )


def _refuse_zero(problem: Problem, target: Vector, dictionary: Dictionary) -> None:
    if problem.norm_squared == 0:
        where = target.tuned.folder if isinstance(target, Difference) else target.folder
        raise BadInput(
            expected="a target that differs from its base",
            found="a task vector of zero",
            where=where,
            hint="check that target and base are not the same model",
        )
    for atom, norm in zip(dictionary.atoms, problem.norms, strict=True):
        if norm == 0:
            where = atom.tuned.folder if isinstance(atom, Difference) else atom.folder
            raise BadInput(
                expected="an atom that changes weights", found="a task vector of zero", where=where, hint="take it out of the dictionary, or train it"
            )


def _sort(problem: Problem, solution: Solution, dictionary: Dictionary) -> tuple[list[Component], list[Absent]]:
    """Components with the largest contribution first, then the rest."""
    shares = np.abs(solution.coefficients) * problem.norms / problem.target_scale
    order = np.argsort(-shares, kind="stable")
    components = [
        Component(name=dictionary.atoms[atom].name, coefficient=float(solution.coefficients[atom]), share=float(shares[atom]))
        for atom in order
        if solution.named[atom]
    ]
    absent = [Absent(name=dictionary.atoms[atom].name, coefficient=float(solution.coefficients[atom])) for atom in order if not solution.named[atom]]
    return components, absent


def _one_minus_cosine_squared(problem: Problem, solution: Solution) -> float:
    fitted = float(solution.coefficients @ problem.gram @ solution.coefficients)
    if fitted <= 0:
        return 1.0
    along = float(solution.coefficients @ problem.correlation)
    return max(1 - along**2 / (fitted * problem.norm_squared), 0.0)


def _error_in_space(seen: Gram, solution: Solution) -> float | None:
    norm_squared = float(seen.norm_squared.sum())
    return float(np.sqrt(problem_of(seen).residual_squared(solution.coefficients) / norm_squared)) if norm_squared > 0 else None


def _used(products: Gram) -> int:
    return int(((products.norm_squared > 0) | (np.einsum("mii->m", products.gram) > 0)).sum())
