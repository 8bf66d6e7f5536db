"""Decompose a target's task vector over a dictionary."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np

from unmerge.checkpoints import Checkpoint, Difference
from unmerge.core.errors import BadInput, unknown_name
from unmerge.core.records import environment
from unmerge.decomposition.alignment import aligned_with, left_out, matched_names, strangers
from unmerge.decomposition.base_check import check_base, check_names
from unmerge.decomposition.blocks import problem_of
from unmerge.decomposition.dictionary import Dictionary, Vector, folder_of, notes_of
from unmerge.decomposition.findings import Findings, from_certificate, from_correlation, from_solver
from unmerge.decomposition.known_products import products_of
from unmerge.decomposition.rearranged import operations, widened
from unmerge.decomposition.rearranged import warnings as rearranged
from unmerge.decomposition.result import Absent, Component, Decomposition, Unexplained
from unmerge.decomposition.spaces import SPACES
from unmerge.solvers import SOLVERS, Problem
from unmerge.vectors import Gram, chosen_device, gram

CERTIFICATE = "certificate"
#: every method, by the name that ``--method`` takes
METHODS = (CERTIFICATE, *SOLVERS)
DEFAULT_METHOD, DEFAULT_SPACE = CERTIFICATE, "exact"


def decompose(
    target: Vector,
    dictionary: Dictionary,
    base: Checkpoint | None = None,
    method: str = DEFAULT_METHOD,
    watch: Callable[[Iterable[str]], Iterable[str]] = iter,
    space: str = DEFAULT_SPACE,
    products: Gram | None = None,
) -> Decomposition:
    """Explain a target by a sparse, non-negative combination of known task vectors.

    Args:
        target: an adapter, or a checkpoint minus the base.
        dictionary: the atoms.
        base: the base, where one was given; for checks and for the record.
        method: a name in METHODS: the certificate, or a solver.
        watch: wraps the loop over tensors, for a progress bar.
        space: where the method looks, a name in ``unmerge.decomposition.spaces.SPACES``. Errors and shares are of all weights anyway.
        products: of this target and dictionary, where they were taken already.

    Returns:
        Components with coefficients, what is absent, what is unexplained, and how far to trust it.

    Raises:
        BadInput: an unknown method or space, atoms that all change nothing, or a target equal to its base.
    """
    if method not in METHODS:
        raise unknown_name(method, METHODS, "--method")
    if space not in SPACES:
        raise unknown_name(space, SPACES, "--space")
    started, where = time.monotonic(), chosen_device()
    target, dictionary = aligned_with(target, dictionary)
    apart = strangers(target, dictionary.atoms)
    products = products_of(target, dictionary, watch) if products is None else products
    problem = problem_of(products)
    _refuse_zero(problem, target, dictionary)
    whole, untrained = dictionary, [atom.name for atom, norm in zip(dictionary.atoms, problem.norms, strict=True) if norm == 0]
    if untrained:
        dictionary, products = dictionary.without(untrained), products.without(untrained)
        problem = problem_of(products)
    looks = SPACES[space]
    seen = products if looks.products is gram else looks.products(dictionary.atoms, target, watch)
    if method != CERTIFICATE:
        findings = from_solver(looks.solve(SOLVERS[method], seen))
    elif space == DEFAULT_SPACE:
        findings = from_certificate(dictionary, target, products, watch)
    else:
        findings = from_correlation(looks, seen)
    findings = widened(findings, target)
    condition = problem_of(seen).condition()
    if findings.by_tensor:  # errors and shares are of what each atom did in each tensor
        products, seen = (_as_it_acted(some, findings) for some in (products, seen))
        problem = problem_of(products)
    error = problem.residual_squared(findings.coefficients) / problem.norm_squared
    base_check = check_base(target, products) if isinstance(target, Difference) else None
    warnings = [*check_names(base, [target, *whole.atoms]), *apart]
    warnings += notes_of(base, [target, *whole.atoms], whole)
    warnings += [f"{name} changes nothing, as an adapter before its training does, and was not looked for" for name in untrained]
    warnings += rearranged(target)
    if base_check and base_check.suspicious:
        warnings.append(base_check.warning())
    named, absent = _sort(problem, findings, dictionary)
    absent += [Absent(name=name, coefficient=0.0, reason="it changes nothing") for name in untrained]
    return Decomposition(
        method=method,
        space=space,
        modules=target.modules,
        device=str(where),
        target=target.source(),
        base=base.source() if base else None,
        dictionary={atom.name: atom.source() for atom in whole.atoms},
        components=named,
        absent=absent,
        unexplained=Unexplained(share=error, **findings.unexplained),
        reconstruction_error=float(np.sqrt(error)),
        reconstruction_error_in_space=_error_in_space(seen, findings),
        one_minus_cosine_squared=_one_minus_cosine_squared(problem, findings),
        condition_number=condition,
        norm=float(np.sqrt(problem.norm_squared)),
        tensors=_used(seen),
        entries=int(seen.entries.sum()),
        solver=findings.solver,
        test=findings.test,
        skipped=left_out(products.skipped, [target, *whole.atoms]),
        matched_names=matched_names([target, *whole.atoms]),
        alignment=operations(target),
        base_check=base_check,
        warnings=warnings,
        seconds=round(time.monotonic() - started, 3),
        environment=environment(),
    )


def _as_it_acted(products: Gram, findings: Findings) -> Gram:
    """The products of atoms that acted with one coefficient in each tensor, each scaled there to act with its mean coefficient."""
    factors = np.ones(products.correlation.shape)
    for atom, own in findings.by_tensor.items():
        mean = float(findings.coefficients[atom])
        factors[:, atom] = [own.get(tensor, mean) / mean if mean else 1.0 for tensor in products.tensors]
    scaled = products.gram * factors[:, :, None] * factors[:, None, :]
    return replace(products, gram=scaled, correlation=products.correlation * factors)


def _refuse_zero(problem: Problem, target: Vector, dictionary: Dictionary) -> None:
    if problem.norm_squared == 0:
        raise BadInput(
            expected="a target that differs from its base",
            found="a task vector of zero",
            where=folder_of(target),
            hint="check that target and base are not the same model",
        )
    if not problem.norms.any():
        raise BadInput(
            expected="an atom that changes weights",
            found="task vectors of zero alone",
            where=folder_of(dictionary.atoms[0]),
            hint="give adapters that were trained",
        )


def _sort(problem: Problem, findings: Findings, dictionary: Dictionary) -> tuple[list[Component], list[Absent]]:
    """Components with the largest contribution first, then the rest; what a component cannot be told from is in its group alone."""
    shares = np.abs(findings.coefficients) * problem.norms / problem.target_scale
    components, absent = [], []
    for atom in np.argsort(-shares, kind="stable").tolist():
        name, coefficient, details = dictionary.atoms[atom].name, float(findings.coefficients[atom]), findings.details.get(atom, {})
        if findings.named[atom]:
            components.append(Component(name=name, coefficient=coefficient, share=float(shares[atom]), **details))
        elif atom not in findings.hidden:
            absent.append(Absent(name=name, coefficient=coefficient, **details))
    return components, absent


def _one_minus_cosine_squared(problem: Problem, findings: Findings) -> float:
    fitted = float(findings.coefficients @ problem.gram @ findings.coefficients)
    if fitted <= 0:
        return 1.0
    along = float(findings.coefficients @ problem.correlation)
    return max(1 - along**2 / (fitted * problem.norm_squared), 0.0)


def _error_in_space(seen: Gram, findings: Findings) -> float | None:
    norm_squared = float(seen.norm_squared.sum())
    return float(np.sqrt(problem_of(seen).residual_squared(findings.coefficients) / norm_squared)) if norm_squared > 0 else None


def _used(products: Gram) -> int:
    return int(((products.norm_squared > 0) | (np.einsum("mii->m", products.gram) > 0)).sum())
