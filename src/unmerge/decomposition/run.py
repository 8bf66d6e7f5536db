"""Decompose a target's task vector over a dictionary, over all weights."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

import numpy as np

from unmerge.checkpoints import Checkpoint, Difference
from unmerge.core.errors import BadInput
from unmerge.core.records import environment
from unmerge.decomposition.base_check import check_base, check_names
from unmerge.decomposition.dictionary import Dictionary, Vector
from unmerge.decomposition.result import Absent, Component, Decomposition, SkippedTensor, SolverReport, Unexplained
from unmerge.solvers import SOLVERS, Problem, Solution
from unmerge.vectors import Gram, gram

DEFAULT_METHOD = "nnls"


def decompose(
    target: Vector,
    dictionary: Dictionary,
    base: Checkpoint | None = None,
    method: str = DEFAULT_METHOD,
    watch: Callable[[Iterable[str]], Iterable[str]] = iter,
) -> Decomposition:
    """Explain a target by a sparse, non-negative combination of known task vectors.

    Args:
        target: an adapter, or a checkpoint minus the base.
        dictionary: the atoms.
        base: the base, where one was given; for checks and for the record.
        method: a name in ``unmerge.solvers.SOLVERS``.
        watch: wraps the loop over tensors, for a progress bar.

    Returns:
        Components with coefficients, what is absent, what is unexplained, and how far to trust it.

    Raises:
        BadInput: an unknown method, a zero atom, or a target equal to its base.
    """
    if method not in SOLVERS:
        raise BadInput(expected=f"one of {', '.join(SOLVERS)}", found=method, where="--method", hint="choose one of them")
    started = time.monotonic()
    products = gram(dictionary.atoms, target, watch)
    problem = Problem(products.gram.sum(0), products.correlation.sum(0), float(products.norm_squared.sum()))
    _refuse_zero(problem, target, dictionary)
    solution = SOLVERS[method](problem)
    base_check = check_base(target, products) if isinstance(target, Difference) else None
    warnings = check_names(base, [target, *dictionary.atoms])
    warnings += [f"{entry} is neither an adapter nor a checkpoint and was ignored" for entry in dictionary.ignored]
    if base_check and base_check.suspicious:
        warnings.append(base_check.warning())
    named, absent = _sort(problem, solution, dictionary)
    return Decomposition(
        method=method,
        target=target.source(),
        base=base.source() if base else None,
        dictionary={atom.name: atom.source() for atom in dictionary.atoms},
        components=named,
        absent=absent,
        unexplained=Unexplained(share=solution.residual_squared / problem.norm_squared),
        reconstruction_error=float(np.sqrt(solution.residual_squared / problem.norm_squared)),
        one_minus_cosine_squared=_one_minus_cosine_squared(problem, solution),
        condition_number=problem.condition(),
        norm=float(np.sqrt(problem.norm_squared)),
        tensors=_used(products),
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


def _used(products: Gram) -> int:
    return int(((products.norm_squared > 0) | (np.einsum("mii->m", products.gram) > 0)).sum())
