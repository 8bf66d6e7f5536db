"""One component removed from the target in every way, and everything else that is removed instead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from unmerge.evaluation.suite import Scores
from unmerge.vectors import TaskVector
from unmerge.verification.conditions import Bench
from unmerge.verification.controls import absent_atom, length, random_direction, shuffled_modules
from unmerge.verification.in_place import Removed
from unmerge.verification.predict import MULTIPLES, Found
from unmerge.verification.record import ControlKind, WayName
from unmerge.verification.ways import by_module, orthogonal


@dataclass(frozen=True)
class Substitute:
    """What is removed in place of the component.

    Attributes:
        atom: whose changes they are.
        vector, coefficient: what is removed.
    """

    atom: str
    vector: TaskVector
    coefficient: float


@dataclass(frozen=True)
class Removal:
    """What one component's removals gave.

    Attributes:
        ways: every task, by way.
        doses: the skill's tasks, by multiple.
        controls: the skill's tasks, with what was removed.
    """

    ways: dict[WayName, Scores]
    doses: dict[float, Scores]
    controls: dict[ControlKind, tuple[Substitute, Scores]]


def remove(
    bench: Bench,
    one: Found,
    found: Sequence[Found],
    by_tensor: Mapping[str, float],
    absent: Mapping[str, TaskVector],
    tasks: Sequence[str],
    seed: int,
) -> Removal:
    """Remove one component from the target.

    Args:
        bench: of the target.
        one: the component.
        found: all components.
        by_tensor: its coefficient in every tensor, by module.
        absent: atoms that were not found.
        tasks: all that a way is scored on.
        seed: of the controls.
    """
    whole = bench.scores(f"- {one.name}", [(one.atom, one.coefficient)], tasks)
    others = [other.atom for other in found if other.name != one.name]
    # a way that comes to the whole atom is not measured twice
    ways: dict[WayName, Scores] = {"whole": whole}
    ways["orthogonal"] = bench.scores(f"- {one.name}, orthogonal", [(orthogonal(one.atom, others), one.coefficient)], tasks) if others else whole
    agreed = all(coefficient == one.coefficient for coefficient in by_tensor.values())
    ways["by module"] = whole if agreed else bench.scores(f"- {one.name}, by module", [(by_module(one.atom, by_tensor), 1.0)], tasks)
    doses = {multiple: whole if multiple == 1 else bench.scores(*_dose(one, multiple), one.tasks) for multiple in MULTIPLES}
    controls = {
        kind: (substitute, bench.scores(f"- {one.name}, {kind}", [(substitute.vector, substitute.coefficient)], one.tasks))
        for kind, substitute in substitutes(one, absent, seed).items()
    }
    return Removal(ways, doses, controls)


def _dose(one: Found, multiple: float) -> tuple[str, Removed]:
    return ("nothing", []) if multiple == 0 else (f"- {multiple:g} x {one.name}", [(one.atom, multiple * one.coefficient)])


def substitutes(one: Found, absent: Mapping[str, TaskVector], seed: int) -> dict[ControlKind, Substitute]:
    """What is removed instead of a component, all as long as it is; no absent atom where every atom is in the target."""
    made: dict[ControlKind, Substitute] = {"random direction": Substitute(one.name, random_direction(one.atom, seed), one.coefficient)}
    if absent:
        other = absent_atom(absent, seed)
        made["absent atom"] = Substitute(other.name, other, one.coefficient * length(one.atom) / length(other))
    made["shuffled modules"] = Substitute(one.name, shuffled_modules(one.atom, seed), one.coefficient)
    return made
