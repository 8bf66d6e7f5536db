"""``--fail-on``: when an audit fails, and that no name passes because it cannot be seen."""

from __future__ import annotations

from typing import Any

import pytest

from unmerge.auditing import Audit, parse_gates
from unmerge.auditing.record import GateResult
from unmerge.core.errors import BadInput

ATOMS = ["code", "<b>style</b>", "maths", "maths-v2", "law", "tiny"]


def check(audit: Audit, text: str) -> GateResult:
    (gate,) = parse_gates([text], ATOMS)
    return gate.check(audit)


def changed(audit: Audit, part: str, **keys: Any) -> Audit:
    """The record with some keys of a part replaced."""
    return audit.model_copy(update={part: getattr(audit, part).model_copy(update=keys)})


@pytest.mark.parametrize(
    ("text", "failed", "because"),
    [
        ("unknown-share=0.1", True, "11.00% of the squared norm is unexplained, beyond rounding"),
        ("unknown-share=0.12", False, "11.00% of the squared norm is unexplained, beyond rounding"),
        ("component=code", True, "it is in the target, at 0.8000"),
        ("component=maths-v2", True, "it cannot be told from maths, which is in the target"),
        ("component=tiny", True, "it could not have been seen at any coefficient"),
        ("component=law", False, "it is not named, and would have been seen from 0.12 on"),
        ("not-verified", True, "maths: not specific"),
        ("no-recipe", False, "a recipe makes the target"),
        ("warning", True, "tiny records the base other, not base"),
    ],
)
def test_conditions(audit_record: Audit, text: str, failed: bool, because: str) -> None:
    assert check(audit_record, text) == GateResult(condition=text, failed=failed, because=because)


@pytest.mark.parametrize(
    ("text", "failed", "because"),
    [
        ("component=code", True, "it is in the target, at 0.8000"),
        ("component=<b>style</b>", False, "not it, but a relative of it is in the target, at 0.4500"),
        ("component=maths", True, "it is in the target, or a relative of it is, at -0.3000"),
        ("component=maths-v2", True, "it cannot be told from maths, which is in the target, or a relative of it is"),
        ("relative=code", False, "it is itself in the target, at 0.8000"),
        ("relative=<b>style</b>", True, "a relative of it is in the target, at 0.4500"),
        ("relative=maths", True, "it or a relative of it is in the target, at -0.3000"),
        ("relative=law", False, "it is not named, and would have been seen from 0.12 on"),
        ("relative=tiny", True, "it could not have been seen at any coefficient"),
        (
            "relative",
            True,
            "a relative of <b>style</b> is in the target, at 0.4500; maths or a relative of it is in the target, at -0.3000",
        ),
    ],
)
def test_relatives_are_another_condition(family_record: Audit, text: str, failed: bool, because: str) -> None:
    assert check(family_record, text) == GateResult(condition=text, failed=failed, because=because)


def test_what_was_not_told_from_its_relatives(audit_record: Audit) -> None:
    """A method that tests no identity: the atom may be a relative, so that neither condition passes it."""
    assert check(audit_record, "component=code").failed
    assert check(audit_record, "relative=code").because == "it or a relative of it is in the target, at 0.8000"
    assert check(audit_record, "relative") == GateResult(condition="relative", failed=False, because="no component is a relative")


def test_a_possible_conflict_fails(family_record: Audit) -> None:
    clash = check(family_record, "licence-conflict")
    assert clash.failed
    assert "but a relative of <b>style</b> (CC-BY-NC-4.0, which may apply) allows no commercial use" in clash.because


def test_a_recipe_explains_what_coefficients_leave(audit_record: Audit) -> None:
    assert audit_record.recipe
    proved = audit_record.model_copy(update={"recipe": audit_record.recipe.model_copy(update={"identical_share": 1.0})})
    assert check(proved, "unknown-share=0") == GateResult(condition="unknown-share=0", failed=False, because="a recipe makes the target")


def test_licences(audit_record: Audit) -> None:
    clash = check(audit_record, "licence-conflict")
    assert clash.failed
    assert "code (GPL-3.0) lets nobody add terms, but <b>style</b> (CC-BY-NC-4.0) allows no commercial use" in clash.because
    assert check(audit_record, "licence-unknown").failed
    fine = changed(audit_record, "licences", findings=[])
    assert check(fine, "licence-conflict") == GateResult(condition="licence-conflict", failed=False, because="no two licences clash")
    assert not check(fine, "licence-unknown").failed


def test_what_was_not_looked_for_does_not_pass(audit_record: Audit) -> None:
    bare = audit_record.model_copy(update={"recipe": None, "verification": None})
    assert check(bare, "no-recipe") == GateResult(condition="no-recipe", failed=True, because="no recipe was looked for")
    assert check(bare, "not-verified").because == "code: not measured; <b>style</b>: not measured; maths: not measured"
    lost = changed(audit_record, "recipe", answer="none of these")
    assert check(lost, "no-recipe").because == "the answer is: none of these"
    assert not check(changed(audit_record, "decomposition", warnings=[]), "warning").failed
    assert not check(changed(audit_record, "decomposition", components=[]), "not-verified").failed


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("licence", r"--fail-on: expected one of unknown-share=X, component=NAME, .*, found licence; did you mean licence-unknown\?"),
        ("everything", "--fail-on: expected one of .*, found everything; write, for example, unknown-share=0.05"),
        ("component=french", "found french; add it to the dictionary, or mend the name"),
        ("licence-conflict=1", "found licence-conflict=1; did you mean licence-conflict"),
        ("component=", "found component="),
        ("relative=kode", r"expected an atom of the dictionary \(code, .*\), found kode; did you mean code"),
        ("unknown-share=much", r"--fail-on unknown-share=much: expected a share from 0 to 1, found 'much'"),
        ("unknown-share=5", "expected a share from 0 to 1, found '5'"),
        ("component=kode", r"expected an atom of the dictionary \(code, .*\), found kode; did you mean code"),
    ],
)
def test_conditions_that_are_none(text: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        parse_gates([text], ATOMS)
