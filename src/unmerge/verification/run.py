"""Removing every component of a target in turn, and measuring what that does: prediction, removals, controls, verdicts."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from unmerge.checkpoints import Checkpoint, Difference
from unmerge.core.errors import BadInput
from unmerge.core.records import environment, write_json
from unmerge.decomposition import Decomposition, Dictionary, acting
from unmerge.decomposition.ablation_record import Remaining
from unmerge.decomposition.dictionary import Vector, refuse_memory
from unmerge.evaluation.models import load_model
from unmerge.evaluation.suite import Suite
from unmerge.vectors import gram
from unmerge.verification import statistics
from unmerge.verification.conditions import Bench, Conditions
from unmerge.verification.in_place import InPlace, parameter_of, stored_dtypes
from unmerge.verification.judged import judged, least_disturbing
from unmerge.verification.matrix import MEASURABLE
from unmerge.verification.measurement import Measurement
from unmerge.verification.placement import remaining
from unmerge.verification.predict import MULTIPLES, Found, mean, measure_base, predict
from unmerge.verification.record import MeasuredTask, Power, Prediction, Verification
from unmerge.verification.removal import Removal, remove
from unmerge.verification.subtract import less
from unmerge.verification.tasks import TaskList
from unmerge.verification.verdict import FALLS_BY, LEVEL, LISTED
from unmerge.verification.ways import posterior

#: asked of the test; the share of items that a removal may set right, which is assumed for it
POWER, RISES = 0.95, 0.02
#: told (conditions done, conditions in all)
Watch = Callable[[int, int], None]


@dataclass(frozen=True)
class Request:
    """What is to be verified.

    Attributes:
        target: an adapter, or a checkpoint minus its base.
        base: its base.
        dictionary: the atoms.
        decomposition: what was found in the target.
        tasks: what is measured.
        chosen: the components to remove, with a coefficient or with None for the one that was found; empty for all.
        seed: of the controls.
    """

    target: Vector
    base: Checkpoint
    dictionary: Dictionary
    decomposition: Decomposition
    tasks: TaskList
    chosen: Mapping[str, float | None]
    seed: int = 0


def verify(
    request: Request,
    suite: Suite,
    items: Path | None = None,
    tell: Callable[[Power, dict[str, Prediction]], None] | None = None,
    watch: Watch | None = None,
) -> Verification:
    """Remove every component that has a task, measure, and put it back.

    Args:
        request: what is to be verified.
        suite: what scores the tasks.
        items: file for the results of every item; a run that was interrupted goes on from it. The predictions are written beside it.
        tell: given the power of the test and the predictions, before anything is measured on the target.
        watch: told of the conditions.

    Raises:
        BadInput: a chosen component that was not found, components without any task, or a model that does not fit.
    """
    started = time.monotonic()
    refuse_memory("verify", request.base, [request.target])
    _refuse_other_layout(request.target)
    found, without_task = components(request)
    if not found:
        return _record(request, suite, [], without_task, items, started)
    stays = remaining(request.target, [(request.dictionary.named(one.name), one.coefficient) for one in found])
    known, count, job = Conditions(items), _Count(watch, len(found)), _job(request, found)
    model, tokenizer = load_model(request.base.folder)
    bench = Bench(InPlace(model, stored_dtypes(request.target)), tokenizer, suite, known, {"base": job}, count)
    base = measure_base(bench, found, request.tasks.all)
    del model, bench  # one model in memory
    power = required_items(len(found), {task: len(scores) for one in found for task, scores in base[one.name].nothing.items() if task in one.tasks})
    predictions = {one.name: predict(one, found, base[one.name]) for one in found}
    if items:
        write_json(items.with_suffix(".predicted.json"), {name: prediction.model_dump(mode="json") for name, prediction in predictions.items()})
    if tell:
        tell(power, predictions)
    model, tokenizer = _loaded(request)
    bench = Bench(InPlace(model, stored_dtypes(request.target)), tokenizer, suite, known, {"target": job}, count)
    before = bench.scores("nothing", [], request.tasks.all)
    removals = _removals(request, bench, found)
    measured = Measurement(request.tasks, found, base, predictions, bench, before, removals, request.seed)
    return _record(request, suite, found, without_task, items, started, measured, stays)


def _record(
    request: Request,
    suite: Suite,
    found: Sequence[Found],
    without_task: list[str],
    items: Path | None,
    started: float,
    measured: Measurement | None = None,
    stays: Sequence[Remaining] = (),
) -> Verification:
    """The record; empty where no component was found."""
    return Verification(
        target=request.target.source(),
        base=request.base.source(),
        dictionary={atom.name: atom.source() for atom in request.dictionary.atoms},
        method=request.decomposition.method,
        power=required_items(len(found), {task: len(measured.before[task]) for one in found for task in one.tasks} if measured else {}),
        tasks=_tasks(measured, suite) if measured else [],
        components=judged(measured) if measured else [],
        without_task=without_task,
        least_disturbing=least_disturbing(measured) if measured else None,
        items=items.name if items and measured else None,
        seed=request.seed,
        warnings=[*request.decomposition.warnings, *map(str, stays)],
        seconds=round(time.monotonic() - started, 2),
        environment=environment(),
    )


def _tasks(measured: Measurement, suite: Suite) -> list[MeasuredTask]:
    nothing = measured.base[measured.found[0].name].nothing
    return [
        MeasuredTask(
            name=task,
            kind="general" if task in measured.tasks.general else "skill",
            items=len(measured.before[task]),
            scorer=suite.scorer(task),
            base=mean(nothing[task]),
            before=mean(measured.before[task]),
        )
        for task in measured.tasks.all
    ]


def conditions(found: int) -> int:
    """How many states of a model are scored for so many components.

    On both models nothing; on the base the doses alone and beside the others, and the component taken out of it; on the target the whole and
    two more ways, the doses other than the whole, three controls.
    """
    return 2 + found * (2 * len(MULTIPLES) + 1 + len(MULTIPLES) + 5)


class _Count:
    """Tells how many conditions are done; those that are asked for to find a cause come on top, and are not told."""

    def __init__(self, watch: Watch | None, found: int) -> None:
        self._watch, self._done, self._all = watch, 0, conditions(found)

    def __call__(self) -> None:
        self._done += 1
        if self._watch:
            self._watch(min(self._done, self._all), self._all)


def components(request: Request) -> tuple[list[Found], list[str]]:
    """What is removed: the components of the decomposition, or those that were chosen, that have tasks. And the names of those without.

    Raises:
        BadInput: a chosen one that was not found and has no coefficient, or components of which none has a task.
    """
    named = {component.name: component for component in request.decomposition.components}
    for name, coefficient in request.chosen.items():
        request.dictionary.named(name)
        if coefficient is None and name not in named:
            raise BadInput(
                expected=f"a component of the target ({', '.join(named) or 'none'})",
                found=name,
                where=request.target.name,
                hint=f"give its coefficient: --remove {name}=0.5",
            )
    found, without_task = [], []
    for name in request.chosen or named:
        given, component = request.chosen.get(name), named.get(name)
        coefficient = given if given is not None else component.coefficient if component else 0.0
        if tasks := request.tasks.of.get(name):
            found.append(Found(acting(request.dictionary.named(name), component if given is None else None), coefficient, tasks))
        else:
            without_task.append(name)
    if without_task and not found:
        raise BadInput(
            expected="a component with a task",
            found=f"none for {', '.join(without_task)}",
            where=request.target.name,
            hint="name its tasks in the file given with --tasks",
        )
    return found, without_task


def required_items(found: int, items: Mapping[str, int]) -> Power:
    """How many items the test needs at its strictest, when it is corrected for all components."""
    level, fall = LEVEL / max(found, 1), FALLS_BY * MEASURABLE
    needed = statistics.items_needed(fall, RISES, level, POWER)
    return Power(
        level=level,
        power=POWER,
        fall=fall,
        needed=needed,
        small_fall=LISTED,
        needed_for_small=statistics.items_needed(LISTED, RISES, LEVEL, POWER),
        short=[task for task, count in items.items() if count < needed],
    )


def _job(request: Request, found: Sequence[Found]) -> Any:
    """Whatever decides a score beside the condition's name."""
    atoms = {atom.name: atom.source().sha256 for atom in request.dictionary.atoms}
    coefficients = {one.name: one.coefficient for one in found}
    return [request.target.source().sha256, request.base.source().sha256, atoms, coefficients, request.seed, environment().versions]


def _refuse_other_layout(target: Vector) -> None:
    if isinstance(target, Difference) and target.alignment is not None:
        raise BadInput(
            expected="a target that is laid out as its base is, to take components out of in memory",
            found=target.alignment.summary or "tensors that are not the base's",
            where=target.tuned.folder,
            hint="unmerge ablate takes them out of it as it is; measure the two checkpoints, and audit without --tasks",
        )


def _loaded(request: Request) -> tuple[Any, Any]:
    """The target as a model: a checkpoint as it is, an adapter merged into its base, in float32 where there is room for it."""
    if isinstance(request.target, Difference):
        return load_model(request.target.tuned.folder)
    model, tokenizer = load_model(request.base.folder)
    with torch.no_grad():
        for tensor in request.target.shapes:
            parameter = parameter_of(model, tensor)
            parameter.copy_(less(parameter.detach().cpu(), [(request.target.delta(tensor), -1.0)]))
    return model, tokenizer


def _removals(request: Request, bench: Bench, found: Sequence[Found]) -> dict[str, Removal]:
    products = gram(request.dictionary.atoms, request.target)
    by_tensor = posterior(products, {one.name: one.coefficient for one in found})
    present = {name for component in request.decomposition.components for name in (component.name, *component.group)} | {one.name for one in found}
    absent = {atom.name: atom for atom in request.dictionary.atoms if atom.name not in present}
    return {one.name: remove(bench, one, found, by_tensor[one.name], absent, request.tasks.all, request.seed) for one in found}
