"""One method's answer about one target, whether it came from a solver on inner products or from a whole decomposition."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unmerge.decomposition import Decomposition
from unmerge.decomposition.result import Absent, Component
from unmerge.decomposition.run import DEFAULT_SPACE
from unmerge.solvers import Problem, Solution
from unmerge_lab.report.study_record import Cell
from unmerge_lab.studies import metrics
from unmerge_lab.studies.metrics import Candidates
from unmerge_lab.studies.targets import Target

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Answer:
    """What was found.

    Attributes:
        named: each component's name.
        candidates: each component with the atoms that it cannot be told from.
        exact: those of them that are claimed to be the very atoms; None where the method does not tell.
        coefficients: (n,), of the dictionary's atoms in order.
        ranking: (n,), what the method ranks atoms by.
        contributions: (n,), c_i ||v_i|| of what the reconstruction is made of.
        error: ||t - t_hat|| / ||t||.
        one_minus_cosine_squared: of t and t_hat.
    """

    named: tuple[str, ...]
    candidates: tuple[Candidates, ...]
    exact: tuple[Candidates, ...] | None
    coefficients: Vector
    ranking: Vector
    contributions: Vector
    error: float
    one_minus_cosine_squared: float


def of_solution(solution: Solution, problem: Problem, atoms: tuple[str, ...]) -> Answer:
    """From a solver's answer.

    Args:
        solution: whatever space it is from.
        problem: over all weights.
        atoms: (n,) names.
    """
    found = solution.coefficients
    contributions = found * problem.norms
    named = tuple(name for name, chosen in zip(atoms, solution.named, strict=True) if chosen)
    return Answer(
        named=named,
        candidates=tuple(frozenset({name}) for name in named),
        exact=None,
        coefficients=found,
        ranking=contributions,
        contributions=contributions,
        error=metrics.reconstruction_error(problem.residual_squared(found), problem.norm_squared),
        one_minus_cosine_squared=metrics.one_minus_cosine_squared(
            float(found @ problem.gram @ found), float(found @ problem.correlation), problem.norm_squared
        ),
    )


def of_decomposition(result: Decomposition, problem: Problem, atoms: tuple[str, ...]) -> Answer:
    """From a decomposition. An atom that is only in a component's group has no coefficient of its own."""
    every: list[Component | Absent] = [*result.components, *result.absent]
    coefficients = {atom.name: atom.coefficient for atom in every}
    found = np.array([coefficients.get(name, 0.0) for name in atoms])
    contributions = found * problem.norms
    told = result.space == DEFAULT_SPACE and all(component.identity is not None for component in result.components)
    return Answer(
        named=tuple(component.name for component in result.components),
        candidates=tuple(_candidates(component) for component in result.components),
        exact=tuple(_candidates(component) for component in result.components if component.identity == "exact") if told else None,
        coefficients=found,
        ranking=_ranking(result, atoms, contributions),
        contributions=contributions,
        error=result.reconstruction_error,
        one_minus_cosine_squared=result.one_minus_cosine_squared,
    )


def _candidates(component: Component) -> Candidates:
    return frozenset({component.name, *component.group})


def _ranking(result: Decomposition, atoms: tuple[str, ...], contributions: Vector) -> Vector:
    """(n,) a test's containment, or where it has none 1 - p; else the contribution. Who is in a component's group ranks with it."""
    every: list[Component | Absent] = [*result.components, *result.absent]
    evidence = {atom.name: atom.containment for atom in every if atom.containment is not None}
    if not evidence:
        evidence = {atom.name: 1 - atom.p_value for atom in every if atom.p_value is not None}
    if not evidence:
        return contributions
    for component in result.components:
        if component.name in evidence:
            evidence |= dict.fromkeys(component.group, evidence[component.name])
    return np.array([evidence.get(name, 0.0) for name in atoms])


def cell(
    target: Target, space: str, method: str, answer: Answer, atoms: tuple[str, ...], seconds: float, solver_seconds: float | None, memory_mib: float
) -> Cell:
    """Measure an answer."""
    return Cell(
        target=target.name,
        group=target.group,
        merge=target.merge,
        is_adapter=target.is_adapter,
        dtype=target.dtype,
        seed=target.seed,
        repeat=target.repeat,
        weighting=target.weighting,
        contents=list(target.weights),
        weights=list(target.weights.values()),
        truth=list(target.known),
        space=space,
        method=method,
        named=list(answer.named),
        coefficients=answer.coefficients.tolist(),
        ranking=answer.ranking.tolist(),
        precision=metrics.precision(answer.candidates, target.known),
        recall=metrics.recall(answer.candidates, target.known),
        perfect=metrics.perfect(answer.candidates, target.known),
        sparsity=len(answer.named),
        exact_precision=None if answer.exact is None else metrics.precision(answer.exact, target.known),
        exact_recall=None if answer.exact is None else metrics.recall(answer.exact, target.known),
        reconstruction_error=answer.error,
        one_minus_cosine_squared=answer.one_minus_cosine_squared,
        effective_components=metrics.effective_number(answer.contributions),
        coefficient_error=metrics.coefficient_error(dict(zip(atoms, answer.coefficients.tolist(), strict=True)), target.acted()),
        seconds=seconds,
        solver_seconds=solver_seconds,
        memory_mib=memory_mib,
    )
