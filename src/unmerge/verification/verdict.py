"""The rules by which a removal is judged; docs/verify.md says them in words."""

from __future__ import annotations

from collections.abc import Sequence

from unmerge.verification.matrix import MEASURABLE
from unmerge.verification.record import Change, Control, Verdict

#: a skill is gone when it loses this share of its score, at this level of the corrected test
FALLS_BY, LEVEL = 0.8, 0.05
#: mean absolute change of the other skills, and of the general tasks, at most
OTHERS, GENERAL = 0.05, 0.02
#: a fall above this is listed with its explanation; another skill that loses this share of its score was removed as well
LISTED, LOST = 0.10, 0.5


def is_gone(before: float, after: float) -> bool:
    """Whether a skill lost at least the share of its score that a verdict asks for."""
    return before > 0 and before - after >= FALLS_BY * before


def judge(before: float, after: float, adjusted_p_value: float, others: Sequence[Change], controls: Sequence[Control]) -> tuple[Verdict, list[str]]:
    """The verdict on one removal, and the numbers behind it.

    Args:
        before: score of the skill in the target.
        after: with the component removed.
        adjusted_p_value: of the fall.
        others: the changes of every other task.
        controls: what else was removed instead.
    """
    if before < MEASURABLE:
        return "not measurable", [f"the skill scored {before:.2f} before; below {MEASURABLE:.2f} there is nothing to lose"]
    fell = f"the skill falls from {before:.2f} to {after:.2f}, by {(before - after) / before:.0%} of its score (corrected p {adjusted_p_value:.1g})"
    if not is_gone(before, after):
        return "no effect", [f"{fell}; {FALLS_BY:.0%} are asked for"]
    if adjusted_p_value > LEVEL:
        return "no effect", [f"{fell}: too few items to tell it from chance"]
    against = list(_against(others, controls))
    return ("not specific", [fell, *against]) if against else ("verified", [fell, _calm(others), *_controlled(controls)])


def _against(others: Sequence[Change], controls: Sequence[Control]) -> list[str]:
    """What speaks against a removal that is specific."""
    against = []
    for kind, most in (("skill", OTHERS), ("general", GENERAL)):
        mean = mean_absolute(others, kind)
        if mean is not None and mean > most:
            against.append(f"{_NAMES[kind]} change by {mean:.3f} in the mean, more than {most:.2f}")
    lost = [change for change in others if change.before >= MEASURABLE and change.after <= (1 - LOST) * change.before]
    against += [f"{change.task} is lost as well: {change.before:.2f} to {change.after:.2f}" for change in lost]
    against += [f"the control does it too ({control.kind}): {control.before:.2f} to {control.after:.2f}" for control in controls if control.verified]
    return against


_NAMES = {"skill": "the other skills", "general": "the general tasks"}


def mean_absolute(changes: Sequence[Change], kind: str) -> float | None:
    """Mean absolute change of the tasks of one kind; None where there are none."""
    sizes = [abs(change.change) for change in changes if change.kind == kind]
    return sum(sizes) / len(sizes) if sizes else None


def _calm(others: Sequence[Change]) -> str:
    means = [(kind, mean_absolute(others, kind)) for kind in _NAMES]
    said = [f"{_NAMES[kind]} change by {mean:.3f} in the mean" for kind, mean in means if mean is not None]
    return ", ".join(said) if said else "nothing else was measured"


def _controlled(controls: Sequence[Control]) -> list[str]:
    least = min(controls, key=lambda control: control.after - control.before, default=None)
    return [f"no control does it; the nearest ({least.kind}) leaves {least.after:.2f} of {least.before:.2f}"] if least else []
