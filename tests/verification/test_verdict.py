"""The rules of docs/verify.md, one case a rule."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from unmerge.verification.record import Change, Control
from unmerge.verification.verdict import judge


def change(task: str, before: float, after: float, kind: str = "skill") -> Change:
    return Change(task=task, kind=kind, before=before, after=after, change=after - before, interval=(0, 0), p_value=1)  # type: ignore[arg-type]


def control(after: float, *, verified: bool = False) -> Control:
    return Control(kind="random direction", atom="a", coefficient=1, before=1, after=after, p_value=1, verified=verified)


@dataclass
class Case:
    verdict: str
    said: str
    before: float = 1.0
    after: float = 0.0
    p_value: float = 1e-9
    others: list[Change] = field(default_factory=lambda: [change("other", 1.0, 0.98), change("copy", 1.0, 0.99, "general")])
    controls: list[Control] = field(default_factory=lambda: [control(0.97)])


CASES = {
    "gone": Case("verified", "the skill falls from 1.00 to 0.00, by 100% of its score (corrected p 1e-09)"),
    "just gone": Case("verified", "by 80% of its score", after=0.2),
    "nothing else measured": Case("verified", "nothing else was measured", others=[], controls=[]),
    "not there before": Case("not measurable", "scored 0.79 before; below 0.80 there is nothing to lose", before=0.79),
    "just there before": Case("verified", "falls from 0.80", before=0.8),
    "half gone": Case("no effect", "by 50% of its score (corrected p 1e-09); 80% are asked for", after=0.5),
    "higher than before": Case("no effect", "by -10%", before=0.9, after=0.99),
    "too few items": Case("no effect", "too few items to tell it from chance", p_value=0.06),
    "others move": Case("not specific", "the other skills change by 0.060 in the mean", others=[change("other", 1.0, 0.94)]),
    "others rise": Case("not specific", "the other skills change by 0.100 in the mean", others=[change("other", 0.2, 0.3)]),
    "general tasks move": Case("not specific", "the general tasks change by 0.030 in the mean", others=[change("copy", 1.0, 0.97, "general")]),
    "another is lost": Case(
        "not specific", "other is lost as well: 1.00 to 0.50", others=[change("other", 1.0, 0.5), *(change(f"s{n}", 1.0, 1.0) for n in range(20))]
    ),
    "what was half there may go": Case("verified", "", others=[change("other", 0.5, 0.0), *(change(f"s{n}", 1.0, 1.0) for n in range(20))]),
    "a control does it": Case("not specific", "the control does it too (random direction): 1.00 to 0.10", controls=[control(0.1, verified=True)]),
}


@pytest.mark.parametrize("name", CASES)
def test_rules(name: str) -> None:
    case = CASES[name]
    verdict, because = judge(case.before, case.after, case.p_value, case.others, case.controls)
    assert verdict == case.verdict
    assert case.said in "; ".join(because)
    if verdict == "verified" and case.controls:
        assert "no control does it; the nearest (random direction) leaves 0.97 of 1.00" in because
