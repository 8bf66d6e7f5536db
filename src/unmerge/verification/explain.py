"""Why does another task fall when a component is removed? Asked of the model, in this order, for every fall that is listed.

1. Nothing in the target is for it: it scored below .8, no component names it, and the base scores less. A merge unlocks such skills in
   part, and less of a merge unlocks less: mostly the removal of another component lowers it too.
2. It is fragile: a random direction of the same norm and spectrum lowers it as well.
3. It hangs by a thread: with a quarter of its own component removed it falls as well.
4. The two share it: where the part that the component shares with the others is left in, it stays.
5. Too much was removed: with half of the coefficient it stays, and the component's own skill is gone already.
"""

from __future__ import annotations

from unmerge.verification.controls import random_direction
from unmerge.verification.matrix import MEASURABLE
from unmerge.verification.measurement import Measurement
from unmerge.verification.predict import Found, mean, pooled
from unmerge.verification.verdict import LISTED, is_gone

#: the share of a component's own coefficient that a skill must be able to lose, and that of the removal which may be enough
_THREAD, _HALF = 0.25, 0.5
UNEXPLAINED = "not explained: not any change of that size does it, its own component is not near its edge, nor do the two share it"


def explain(measured: Measurement, one: Found, task: str) -> str:
    """Say why a task falls.

    Args:
        measured: on the target.
        one: the component that was removed.
        task: that falls.
    """
    had = mean(measured.before[task])
    owners = [other for other in measured.found if task in other.tasks]
    return (
        (None if owners or had >= MEASURABLE else _together(measured, one, task, had))
        or _fragile(measured, one, task, had)
        or next((said for owner in owners if (said := _by_a_thread(measured, owner, task, had))), None)
        or _shared(measured, one, task, had)
        or _too_much(measured, one, task, had)
        or UNEXPLAINED
    )


def _together(measured: Measurement, one: Found, task: str, had: float) -> str | None:
    base = mean(measured.base[one.name].nothing[task])
    if had - base <= LISTED:
        return None
    said = f"no component is for it, the merge unlocks it in part (the base scores {base:.2f})"
    left = {other.name: mean(measured.removals[other.name].ways["whole"][task]) for other in measured.others(one)}
    least = min(left, key=lambda name: left[name], default=None)
    also = least is not None and had - left[least] > LISTED
    return f"{said}: without {least} {left[least]:.2f} are left" if least is not None and also else f"{said}, this component above all"


def _fragile(measured: Measurement, one: Found, task: str, had: float) -> str | None:
    random = random_direction(one.atom, measured.seed)
    left = mean(measured.bench.scores(f"- {one.name}, random direction", [(random, one.coefficient)], [task])[task])
    return f"it is fragile: a random direction as large leaves {left:.2f}" if had - left > LISTED else None


def _by_a_thread(measured: Measurement, owner: Found, task: str, had: float) -> str | None:
    left = mean(measured.bench.scores(f"- {_THREAD:g} x {owner.name}", [(owner.atom, _THREAD * owner.coefficient)], [task])[task])
    return f"it hangs by a thread: without a quarter of its own component {left:.2f} are left" if had - left > LISTED else None


def _shared(measured: Measurement, one: Found, task: str, had: float) -> str | None:
    left = mean(measured.removals[one.name].ways["orthogonal"][task])
    return f"the two share it: {left:.2f} are left where the shared part stays in" if had - left <= LISTED else None


def _too_much(measured: Measurement, one: Found, task: str, had: float) -> str | None:
    half = measured.bench.scores(f"- {_HALF:g} x {one.name}", [(one.atom, _HALF * one.coefficient)], [task, *one.tasks])
    if had - mean(half[task]) > LISTED or not is_gone(mean(pooled(measured.before, one.tasks)), mean(pooled(half, one.tasks))):
        return None
    return f"too much was removed: half of it leaves {mean(half[task]):.2f}, and the component's own skill is gone already"
