"""What a method finds, before it becomes a result: from a solver, from the certificate, or from its test by correlation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from unmerge.certificate import CONFIDENCE, LEVEL, Certificate, CorrelationTest, Found, Grid, Group, Identity, certify, solve
from unmerge.checkpoints import Difference
from unmerge.decomposition.dictionary import Dictionary, Vector
from unmerge.decomposition.result import ProfilePart, SolverReport, TestReport
from unmerge.decomposition.spaces import Space, Watch
from unmerge.solvers import Solution
from unmerge.vectors import Gram, layer_of

#: the null hypotheses, by what an atom is tested by
BY_SUBSPACES = "the atom is not in the target; what it shares with the target's signal, it shares as other adapters to this base do"
BY_CORRELATION = "the atom is not in the target; what is unknown there is as closely related to it as the dictionary's atoms are to each other"


@dataclass(frozen=True)
class Findings:
    """What was found of n atoms.

    Attributes:
        coefficients: (n,).
        named: (n,) whether the atom is a component.
        hidden: atoms that are named in a component's group.
        details: further keys of each atom's entry in the result, by its place.
        by_tensor: of atoms whose coefficient varies, those in the tensors where it was measured.
        unexplained: further keys of what is left.
        solver, test: how it was found.
    """

    coefficients: NDArray[np.float64]
    named: NDArray[np.bool_]
    hidden: frozenset[int] = frozenset()
    details: Mapping[int, dict[str, Any]] = field(default_factory=dict)
    by_tensor: Mapping[int, Mapping[str, float]] = field(default_factory=dict)
    unexplained: Mapping[str, Any] = field(default_factory=dict)
    solver: SolverReport | None = None
    test: TestReport | None = None


def from_solver(solution: Solution) -> Findings:
    """A solver's answer."""
    report = SolverReport(violation=solution.violation, steps=solution.steps, stopped=solution.stopped)
    return Findings(solution.coefficients, solution.named, solver=report)


def from_certificate(dictionary: Dictionary, target: Vector, products: Gram, watch: Watch) -> Findings:
    """The certificate, over all weights."""
    grid = Grid(target.base.rows, target.tuned.dtype) if isinstance(target, Difference) else None
    certificate = certify(dictionary.atoms, target, products, grid, watch)
    names = products.atoms
    named = np.isin(np.arange(len(names)), [found.atom for found in certificate.found])
    coefficients = np.zeros(len(names))
    details = {atom: {"p_value": float(certificate.p_value[atom])} | _absence(certificate, atom, names) for atom in range(len(names))}
    for found in certificate.found:
        coefficients[found.atom] = found.coefficient
        details[found.atom] = {
            "p_value": found.p_value,
            "q_value": found.q_value,
            "interval": _finite(found.interval),
            "group": [names[other] for other in found.group],
            "by_tensor": dict(found.by_tensor),
            "agreement": found.agreement,
            **_identity(certificate, found),
            "uniform": not found.profile,
            "profile": [_part(group) for group in found.profile],
        }
    for atom in np.flatnonzero(np.isfinite(certificate.containment)).tolist():
        details[atom]["containment"] = float(certificate.containment[atom])
    return Findings(
        coefficients=coefficients,
        named=named,
        hidden=frozenset(other for found in certificate.found for other in found.group),
        details=details,
        by_tensor={
            found.atom: {tensor: group.coefficient for group in found.profile for tensor in group.tensors}
            for found in certificate.found
            if found.profile
        },
        unexplained={
            "rounding_share": certificate.rounding_share,
            "rank": certificate.unknown_rank,
            "components": certificate.unknown_components,
        },
        test=TestReport(
            hypothesis=BY_CORRELATION if certificate.dense.all() else BY_SUBSPACES,
            level=LEVEL,
            confidence=CONFIDENCE,
            estimator=certificate.estimator,
            blind=list(certificate.blind),
            by_correlation=[names[atom] for atom in np.flatnonzero(certificate.dense).tolist()],
            trimmed=certificate.trimmed,
            by_weights=[names[atom] for atom in certificate.proven],
            stand_ins=certificate.stand_ins,
            svd_error=certificate.svd_error or None,
            **_rounding(certificate, names),
        ),
    )


def from_correlation(space: Space, seen: Gram) -> Findings:
    """The certificate where only some of the weights are looked at, or some at a time: subspaces are not there, inner products are.

    Over several parts the p-values are combined by Cauchy's distribution, whatever depends on what (Liu and Xie 2020, Journal of the
    American Statistical Association 115), and coefficients by the share of the atom's squared norm in each. They have no interval: what is
    unknown is not projected off, and how far it moves them is not known.
    """
    parts = space.parts(seen)
    p_value = _combined(np.array([CorrelationTest(part).presence().p_value for part in parts]))
    q_value = np.asarray(stats.false_discovery_control(p_value))
    named = q_value <= LEVEL
    chosen = np.flatnonzero(named)
    coefficients = np.zeros(len(named))
    systems = np.array([part.gram.sum(0)[np.ix_(chosen, chosen)] for part in parts]), np.array([part.correlation.sum(0)[chosen] for part in parts])
    weights = np.einsum("bii->bi", systems[0])
    answers = np.array([solve(gram, correlation) for gram, correlation in zip(*systems, strict=True)])
    coefficients[chosen] = (weights * answers).sum(0) / weights.sum(0)
    limits = CorrelationTest(seen).detection_limits()
    details: dict[int, dict[str, Any]] = {
        atom: {"p_value": float(p_value[atom]), "detection_limit": float(limits[atom]) if np.isfinite(limits[atom]) else None}
        for atom in range(len(named))
    }
    for atom in chosen.tolist():
        details[atom] = {"p_value": float(p_value[atom]), "q_value": float(q_value[atom])}
    report = TestReport(hypothesis=BY_CORRELATION, level=LEVEL, confidence=CONFIDENCE, estimator="least squares", by_correlation=list(seen.atoms))
    return Findings(coefficients, named, details=details, test=report)


def _identity(certificate: Certificate, found: Found) -> dict[str, Any]:
    """Whether a component is its very atom; how like it is to it where it is not."""
    identity = found.likeness.identity
    if identity is Identity.EXACT:
        return {"identity": str(identity)}
    score, error = float(certificate.presence.score[found.atom]), float(certificate.presence.error[found.atom])
    if not np.isfinite(found.likeness.core):
        return {"identity": str(identity)}
    # of the directions that a relative shares with the atom, as much on one side as on the other; less what is not shared within them
    shared, within = float(np.clip(score, 0, 1)), 1 + found.likeness.core
    reach = stats.t.isf((1 - CONFIDENCE) / 2, max(int(certificate.presence.tensors[found.atom]) - 1, 1)) * error
    ends = [float(np.sqrt(np.clip(end, 0, 1) / within)) for end in (score - reach, score + reach)]
    return {
        "identity": str(identity),
        "similarity": float(np.sqrt(shared / within)),
        "similarity_interval": (ends[0], ends[1]) if np.isfinite(error) else None,
    }


def _part(group: Group) -> ProfilePart:
    """A part of the model for the record: its layers and its kind of module."""
    numbers = sorted({int(number) for tensor in group.tensors if (number := layer_of(tensor).rpartition(".")[2]).isdigit()})
    layers = "" if not numbers else str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]}-{numbers[-1]}"
    kind = group.kind.rpartition("*.")[2].removesuffix(".weight")
    return ProfilePart(layers=layers, kind=kind, coefficient=group.coefficient, interval=_finite(group.interval))


def _rounding(certificate: Certificate, names: tuple[str, ...]) -> dict[str, Any]:
    """What is known of the order of rounding."""
    if (rounded := certificate.rounded) is None:
        return {}
    told = rounded.is_told
    return {
        "rounding_order": str(rounded.order) if told else None,
        "rounding_identical": rounded.identical,
        "rounding_ties": [] if told else [str(order) for order in rounded.ties],
        "rounding_sequence": [names[certificate.found[place].atom] for place in rounded.order.sequence] if told else [],
    }


def _finite(interval: tuple[float, ...]) -> tuple[float, ...] | None:
    """An interval, unless a single tensor tells nothing of its width."""
    return interval if np.isfinite(interval).all() else None


def _absence(certificate: Certificate, atom: int, names: tuple[str, ...]) -> dict[str, Any]:
    limit, instead = certificate.detection_limits[atom], certificate.variant_of.get(atom)
    return {
        "detection_limit": float(limit) if np.isfinite(limit) else None,
        "variant_of": names[instead] if instead is not None else None,
    }


def _combined(p_values: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n,) from (parts, n); a part that cannot tell says 1, and does not count."""
    telling = p_values < 1
    if len(p_values) == 1 or not telling.any():
        return np.asarray(p_values[0])
    bounded = np.clip(p_values, 1e-300, 1 - 1e-12)  # the tangent has poles at 0 and 1
    total = np.where(telling, 1 / np.tan(np.pi * bounded), 0.0).sum(0)
    return np.where(telling.any(0), stats.cauchy.sf(total / np.maximum(telling.sum(0), 1)), 1.0)
