"""Run an audit: decompose, read the licences, and, as far as it is asked for, recover and verify."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime

from unmerge.audit.gates import Gate
from unmerge.audit.licences import LicenceReport, judge, read_licence
from unmerge.audit.record import Audit
from unmerge.checkpoints import Checkpoint
from unmerge.core.records import environment, read_json, write_json
from unmerge.core.staging import Stage
from unmerge.decomposition import Decomposition, Dictionary, decompose
from unmerge.decomposition.base_check import model_name
from unmerge.decomposition.dictionary import Vector, folder_of

#: a part of the record as a file of its own, which an interrupted audit finds again
DECOMPOSITION = "decomposition.json"

#: given a title, a wrapper for loops
Over = Callable[[str], Callable[[Iterable[str]], Iterable[str]]]


def run_audit(
    target: Vector, dictionary: Dictionary, base: Checkpoint, stage: Stage, gates: Sequence[Gate] = (), over: Over = lambda _: iter
) -> Audit:
    """Find out everything about one target.

    Args:
        target: an adapter, or a checkpoint minus the base.
        dictionary: the atoms.
        base: the base.
        stage: the folder under construction; parts found there are used again.
        gates: conditions under which the audit fails.
        over: given a title, returns a wrapper for loops.

    Returns:
        The record, which is for the caller to write.
    """
    decomposition = _decomposition(stage, lambda: decompose(target, dictionary, base, watch=over("inner products")))
    audit = Audit(
        name=target.name,
        base_name=model_name(base.folder),
        made=datetime.now(UTC).isoformat(timespec="seconds"),
        decomposition=decomposition,
        licences=read_licences(target, dictionary, base, decomposition),
        environment=environment(),
    )
    return audit.model_copy(update={"gates": [gate.check(audit) for gate in gates]})


def read_licences(target: Vector, dictionary: Dictionary, base: Checkpoint, found: Decomposition) -> LicenceReport:
    """Licences of the target, its base, the components, and what they cannot be told from."""
    licences = [read_licence(folder_of(target), target.name, "target"), read_licence(base.folder, model_name(base.folder), "base")]
    for component in found.components:
        licences.append(read_licence(folder_of(dictionary.named(component.name)), component.name, "component"))
        licences += [read_licence(folder_of(dictionary.named(name)), name, "candidate") for name in component.group]
    return judge(licences, found.unexplained.components or 0)


def _decomposition(stage: Stage, make: Callable[[], Decomposition]) -> Decomposition:
    if not stage.has(DECOMPOSITION):
        with stage.piece(DECOMPOSITION) as piece:
            write_json(piece, make())
    return Decomposition.model_validate(read_json(stage.folder / DECOMPOSITION, "a decomposition"))
