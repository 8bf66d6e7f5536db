"""Why a skill is still there, and why another one fell: a made-up model in which the cause is known."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import pytest
import torch

from unmerge.evaluation.suite import Scores
from unmerge.vectors import Dense, Held
from unmerge.verification.conditions import Bench
from unmerge.verification.explain import explain
from unmerge.verification.in_place import Removed
from unmerge.verification.measurement import Measurement
from unmerge.verification.predict import MULTIPLES, Found, OnTheBase
from unmerge.verification.record import Dose
from unmerge.verification.removal import Removal
from unmerge.verification.survival import survival
from unmerge.verification.tasks import TaskList

ITEMS = 20
#: the skill's score by what is left of every atom; a random direction counts as the atom "random"
World = Callable[[Mapping[str, float]], float]
WHOLE = {"one": 1.0, "two": 1.0, "three": 1.0}


def items(share: float) -> list[float]:
    return [1.0] * round(share * ITEMS) + [0.0] * (ITEMS - round(share * ITEMS))


class MadeUp(Bench):
    """A target in which every task's score follows from what is left of the atoms."""

    def __init__(self, worlds: Mapping[str, World]) -> None:
        self._worlds = worlds

    def scores(self, condition: str, removed: Removed, tasks: Sequence[str]) -> Scores:
        left = dict(WHOLE)
        for vector, coefficient in removed:
            name = "random" if vector.name.startswith("random") else vector.name
            left[name] = left.get(name, 0.0) - coefficient
        return {task: items(self._worlds[task](left)) for task in tasks}


FOUND = [Found(Held(name, {"w": Dense(torch.eye(3))}), 1.0, (f"task {name}",)) for name in WHOLE]
ONE = FOUND[0]


def measured(base: Mapping[str, float] | None = None, orthogonal: Mapping[str, float] | None = None, **worlds: World) -> Measurement:
    """Worlds by task, ``one`` for ``task one`` and so on, ``other`` for a task that no component is for."""
    of: dict[str, World] = {f"task {name}": lambda left, name=name: float(left[name] > 0.5) for name in WHOLE}  # type: ignore[misc]
    of |= {"other" if name == "other" else f"task {name}": world for name, world in worlds.items()}
    bench, tasks = MadeUp(of), list(of)
    shares = {task: items((base or {}).get(task, 0.0)) for task in tasks}
    removals = {}
    for one in FOUND:
        whole = bench.scores("", [(one.atom, 1.0)], tasks)
        removals[one.name] = Removal(
            {"whole": whole, "orthogonal": whole | {task: items(share) for task, share in (orthogonal or {}).items()}}, {}, {}
        )
    listed = TaskList({name: (f"task {name}",) for name in WHOLE} | ({"nobody": ("other",)} if "other" in worlds else {}))
    on_base = OnTheBase(nothing=shares, left={}, beside={}, alone={})
    return Measurement(listed, FOUND, dict.fromkeys(WHOLE, on_base), {}, bench, bench.scores("", [], tasks), removals, 0)


def doses(world: World) -> list[Dose]:
    return [
        Dose(multiple=multiple, coefficient=multiple, predicted=0, predicted_beside=0, score=world({**WHOLE, "one": 1 - multiple}))
        for multiple in MULTIPLES
    ]


SURVIVALS: dict[str, tuple[World, float, str, str]] = {
    "the base": (lambda _: 1.0, 0.9, "the base has it", "the base alone scores 0.90, 1.00 are left"),
    "more of it": (lambda left: float(left["one"] > -0.4), 0.0, "coefficient too small", "1.5 times the coefficient leaves 0.00 of 1.00"),
    "another": (lambda left: float(left["one"] > 0.5 or left["two"] > 0.5), 0.0, "another component carries it", "without two as well 0.00"),
    "all others": (
        lambda left: float(max(left.values()) > 0.5),
        0.0,
        "another component carries it",
        "several together: without all components 0.00 of 1.00",
    ),
    "nobody knows": (lambda _: 0.9, 0.1, "not known", "0.90 are left of 0.90 without any component that was named"),
}


@pytest.mark.parametrize("name", SURVIVALS)
def test_survival(name: str) -> None:
    world, base, cause, evidence = SURVIVALS[name]
    found = survival(measured({"task one": base}, one=world), ONE, doses(world))
    assert found.cause == cause
    assert evidence in found.evidence


def falls(what: float, least: float = 0.0) -> World:
    """A task that is there as long as so much of the first component is left."""
    return lambda left: 1.0 if left["one"] > what else least


EXPLANATIONS: dict[str, tuple[Measurement, str, str]] = {
    "unlocked by the merge": (
        measured(other=lambda left: 0.2 * (sum(left.values()) - 0.5)),
        "other",
        "no component is for it, the merge unlocks it in part (the base scores 0.00): without two 0.30 are left",
    ),
    "unlocked by this one": (
        measured(other=lambda left: 0.5 * left["one"]),
        "other",
        "no component is for it, the merge unlocks it in part (the base scores 0.00), this component above all",
    ),
    "fragile": (
        measured(two=lambda left: 1.0 if left["one"] > 0.5 and left.get("random", 0.0) > -0.5 else 0.4),
        "task two",
        "it is fragile: a random direction as large leaves 0.40",
    ),
    "a thread": (
        measured(two=lambda left: 1.0 if left["one"] > 0.5 and left["two"] > 0.8 else 0.25),
        "task two",
        "it hangs by a thread: without a quarter of its own component 0.25 are left",
    ),
    "shared": (measured(two=falls(0.5), orthogonal={"task two": 0.95}), "task two", "the two share it: 0.95 are left where the shared part stays in"),
    "too much": (
        measured(two=falls(0.2), one=lambda left: float(left["one"] > 0.7)),
        "task two",
        "too much was removed: half of it leaves 1.00, and the component's own skill is gone already",
    ),
    "too much, but needed": (measured(two=falls(0.2), one=lambda left: float(left["one"] > 0.2)), "task two", "not explained"),
    "not the merge's, the base has it": (measured({"other": 0.7}, other=lambda left: 0.75 if left["one"] > 0.5 else 0.5), "other", "not explained"),
    "somebody else's": (measured(other=falls(0.9, least=0.5)), "other", "not explained"),
}


@pytest.mark.parametrize("name", EXPLANATIONS)
def test_explanations(name: str) -> None:
    made, task, said = EXPLANATIONS[name]
    assert explain(made, ONE, task).startswith(said)
