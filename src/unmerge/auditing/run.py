"""Run an audit: decompose, read the licences, and, as far as it is asked for, recover and verify."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

from pydantic import BaseModel

from unmerge.auditing.gates import Gate
from unmerge.auditing.licences import Licence, LicenceReport, Role, judge, read_licence
from unmerge.auditing.record import Audit
from unmerge.checkpoints import Adapter, Checkpoint, Difference
from unmerge.checkpoints.hub import model_name
from unmerge.core.records import environment, read_json, write_json
from unmerge.core.staging import Stage
from unmerge.decomposition import Decomposition, Dictionary, decompose
from unmerge.decomposition.dictionary import Vector, folder_of
from unmerge.recipes.record import RecoveredRecipe
from unmerge.recipes.recover import Watch, recovered
from unmerge.verification.record import Verification
from unmerge.verification.run import Request as VerifyRequest
from unmerge.verification.run import verify
from unmerge.verification.tasks import TaskList

#: parts of the record as files of their own, which an interrupted audit finds again
DECOMPOSITION, RECIPE, VERIFICATION = "decomposition.json", "RECIPE.json", "verification.json"
#: the scores of every item, from which a verification goes on
_ITEMS = "verification.items.jsonl"

Part = TypeVar("Part", bound=BaseModel)


@dataclass(frozen=True)
class Watches:
    """Who is told how far the work is.

    Attributes:
        over: given a title, a wrapper for loops.
        steps: given a title, what is told of steps.
    """

    over: Callable[[str], Callable[[Iterable[str]], Iterable[str]]] = lambda _: iter
    steps: Callable[[str], Callable[[int, int], None]] = lambda _: lambda *_: None


@dataclass(frozen=True)
class Request:
    """What is to be audited.

    Attributes:
        target: an adapter, or a checkpoint minus the base.
        dictionary: the atoms.
        base: the base; an adapter among plain LoRA adapters needs none, and then no recipe is looked for and nothing is measured.
        tasks: what is measured with each component removed; None to measure nothing.
        limit: items of each task at most.
        gates: conditions under which the audit fails.
    """

    target: Vector
    dictionary: Dictionary
    base: Checkpoint | None
    tasks: TaskList | None = None
    limit: int | None = None
    gates: Sequence[Gate] = ()


def run_audit(request: Request, stage: Stage, watches: Watches | None = None) -> Audit:
    """Find out everything about one target.

    Args:
        request: what is to be audited.
        stage: the folder under construction; parts found there are used again.
        watches: who is told how far the work is.

    Returns:
        The record, which is for the caller to write.
    """
    watches = watches or Watches()
    target, dictionary, base = request.target, request.dictionary, request.base
    found = _kept(stage, DECOMPOSITION, Decomposition, lambda: decompose(target, dictionary, base, watch=watches.over("inner products")))
    audit = Audit(
        name=target.name,
        base_name=_base_name(target, base),
        made=datetime.now(UTC).isoformat(timespec="seconds"),
        decomposition=found,
        recipe=_recipe(request, found, stage, watches.over("recovering")),
        verification=_verification(request, found, stage, watches.steps("measuring")),
        licences=read_licences(target, dictionary, base, found),
        environment=environment(),
    )
    return audit.model_copy(update={"gates": [gate.check(audit) for gate in request.gates]})


def _recipe(request: Request, found: Decomposition, stage: Stage, watch: Watch) -> RecoveredRecipe | None:
    """How the components were merged."""
    base = request.base
    if not found.components or base is None or _is_laid_out_otherwise(request.target):
        return None
    return _kept(stage, RECIPE, RecoveredRecipe, lambda: recovered(request.target, request.dictionary, base, watch))


def _is_laid_out_otherwise(target: Vector) -> bool:
    """Whether something was done to the weights that mergekit does not do, so that no configuration of it makes them."""
    return isinstance(target, Difference) and target.alignment is not None and not target.alignment.has_moved_layers_only


def _verification(request: Request, found: Decomposition, stage: Stage, tell: Callable[[int, int], None]) -> Verification | None:
    """What removing each component does, where tasks say what to look at."""
    tasks = request.tasks
    if tasks is None or request.base is None or not any(component.name in tasks.of for component in found.components):
        return None
    asked = VerifyRequest(request.target, request.base, request.dictionary, found, tasks, {})
    return _kept(stage, VERIFICATION, Verification, lambda: verify(asked, tasks.suite(limit=request.limit), stage.folder / _ITEMS, watch=tell))


def _base_name(target: Vector, base: Checkpoint | None) -> str | None:
    if base is not None and not base.is_in_memory:
        return model_name(base.folder)
    return target.config.base_name if isinstance(target, Adapter) else None


def read_licences(target: Vector, dictionary: Dictionary, base: Checkpoint | None, found: Decomposition) -> LicenceReport:
    """Licences of the target, its base, the components, and what they cannot be told from."""
    of_base = _base_name(target, base) or "the base"
    trouble = "the base was not given, so that its card was not read"
    licences = [
        read_licence(folder_of(target), target.name, "target"),
        read_licence(base.folder, of_base, "base") if base else Licence(of=of_base, role="base", trouble=trouble),
    ]
    for component in found.components:
        first: Role = "relative" if component.identity == "relative" else "component"
        others: Role = "relative" if component.identity == "relative" else "candidate"
        licences.append(read_licence(folder_of(dictionary.named(component.name)), component.name, first))
        licences += [read_licence(folder_of(dictionary.named(name)), name, others) for name in component.group]
    return judge(licences, found.unexplained.components or 0)


def _kept(stage: Stage, name: str, kind: type[Part], make: Callable[[], Part]) -> Part:
    """A part of the record, made unless the stage has it."""
    if not stage.has(name):
        with stage.piece(name) as piece:
            write_json(piece, make())
    return kind.model_validate(read_json(stage.folder / name, "a part of an audit"))
