"""What a result says of a target that was not laid out as its base is."""

from __future__ import annotations

from dataclasses import replace

from unmerge.checkpoints import Difference
from unmerge.checkpoints.alignment import RESCALED, AlignedCheckpoint
from unmerge.decomposition.dictionary import Vector
from unmerge.decomposition.findings import Findings
from unmerge.decomposition.result import AlignmentOperation


def operations(target: Vector) -> list[AlignmentOperation]:
    """What was undone before the base was subtracted."""
    view = _view(target)
    return [AlignmentOperation(operation=one.operation, tensors=list(one.tensors), detail=one.detail) for one in view.operations] if view else []


def warnings(target: Vector) -> list[str]:
    """A line for what was undone, and one for tensors that nothing brought to the base's."""
    view = _view(target)
    if view is None:
        return []
    lines = [f"the target is not laid out as the base is, and was brought to its layout first: {view.summary}"] if view.operations else []
    if view.unlike:
        tensor, reason = next(iter(view.unlike.items()))
        lines.append(f"{len(view.unlike)} tensors are not the base's and were left out, so that nothing is said of them ({tensor}: {reason})")
    return lines


def widened(findings: Findings, target: Vector) -> Findings:
    """Intervals that hold what undoing factors may move.

    A factor is read off n weights of a row or a column, and takes the part of the change that lies along them out as well: about one nth of
    its square, and of the coefficient.
    """
    view = _view(target)
    tensors = [tensor for one in view.operations if one.operation == RESCALED for tensor in one.tensors] if view else []
    lengths = [min(view.shape(tensor)) for tensor in tensors if len(view.shape(tensor)) == 2] if view else []
    if not lengths:
        return findings
    details = {atom: dict(found) for atom, found in findings.details.items()}
    for atom, found in details.items():
        if found.get("interval"):
            low, high = found["interval"]
            reach = abs(float(findings.coefficients[atom])) / min(lengths)
            found["interval"] = (low - reach, high + reach)
    return replace(findings, details=details)


def _view(target: Vector) -> AlignedCheckpoint | None:
    return target.alignment if isinstance(target, Difference) else None
