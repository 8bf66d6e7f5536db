"""Why is a skill still there after its component was removed? Asked of the model, in this order.

1. The base has it: it answers at least half of what is left.
2. The coefficient was too small: removing one and a half times as much makes the skill fall.
3. Another component carries it: with that one, or with all of them, removed as well the skill falls.
"""

from __future__ import annotations

from collections.abc import Sequence

from unmerge.verification.conditions import Bench
from unmerge.verification.measurement import Measurement
from unmerge.verification.predict import Found, mean, pooled
from unmerge.verification.record import Dose, Survival
from unmerge.verification.verdict import is_gone


def survival(measured: Measurement, one: Found, doses: Sequence[Dose]) -> Survival:
    """Find the cause.

    Args:
        measured: on the target.
        one: the component whose skill is still there.
        doses: of its removal.
    """
    base, before, after = (
        mean(pooled(scores, one.tasks)) for scores in (measured.base[one.name].nothing, measured.before, measured.removals[one.name].ways["whole"])
    )
    if base >= after / 2:
        return Survival(cause="the base has it", evidence=f"the base alone scores {base:.2f}, {after:.2f} are left")
    most = max(doses, key=lambda dose: dose.multiple)
    if is_gone(before, most.score):
        return Survival(cause="coefficient too small", evidence=f"{most.multiple:g} times the coefficient leaves {most.score:.2f} of {before:.2f}")
    both = {other.name: _without(measured.bench, [one, other], one.tasks) for other in measured.others(one)}
    if carriers := [name for name, score in both.items() if is_gone(before, score)]:
        said = ", ".join(f"without {name} as well {both[name]:.2f}" for name in carriers)
        return Survival(cause="another component carries it", evidence=f"{after:.2f} are left of {before:.2f}; {said}")
    rest = _without(measured.bench, measured.found, one.tasks) if len(both) > 1 else min(both.values(), default=after)
    if is_gone(before, rest):
        return Survival(cause="another component carries it", evidence=f"several together: without all components {rest:.2f} of {before:.2f}")
    evidence = f"{rest:.2f} are left of {before:.2f} without any component that was named; something that is not may carry it"
    return Survival(cause="not known", evidence=evidence)


def _without(bench: Bench, removed: Sequence[Found], tasks: Sequence[str]) -> float:
    condition = f"without {' and '.join(one.name for one in removed)}"
    return mean(pooled(bench.scores(condition, [(one.atom, one.coefficient) for one in removed], tasks), tasks))
