"""``--fail-on``: conditions under which an audit fails, for use in a pipeline.

=================  =========================================================================================================================
unknown-share=X    no recipe makes the target, and more than the share X of its squared norm is explained neither by components nor rounding
component=NAME     NAME is in the target, or may be: a component cannot be told from it, or it could not have been seen
relative=NAME      a relative of NAME is in the target, or may be; NAME itself is not asked for
relative           some component is a relative of an atom, or may be
licence-conflict   two licences clash, or may where one of them is a relative's
licence-unknown    a licence is missing, or its terms are not known
not-verified       a component's removal was not measured, or its verdict is another than "verified"
no-recipe          no recipe makes the target
warning            the decomposition warns of something, such as another base
=================  =========================================================================================================================
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

from unmerge.auditing.licences import LicenceFinding
from unmerge.auditing.record import Audit, GateResult
from unmerge.core.errors import BadInput, unknown_name
from unmerge.decomposition.result import Component
from unmerge.recipes.recover import FOUND

_OPTION = "--fail-on"
_CHOICES = (
    *("unknown-share=X", "component=NAME", "relative=NAME", "relative", "licence-conflict", "licence-unknown"),
    *("not-verified", "no-recipe", "warning"),
)


class Gate(ABC):
    """A condition, as it was asked."""

    asked: str

    @abstractmethod
    def because(self, audit: Audit) -> tuple[bool, str]:
        """(whether it fails, the numbers behind that)."""

    def check(self, audit: Audit) -> GateResult:
        """The condition on one audit."""
        failed, because = self.because(audit)
        return GateResult(condition=self.asked, failed=failed, because=because)


@dataclass(frozen=True)
class _UnknownShare(Gate):
    asked: str
    limit: float

    def because(self, audit: Audit) -> tuple[bool, str]:
        if audit.proved:
            return False, "a recipe makes the target"
        left = audit.decomposition.unexplained
        share = max(left.share - (left.rounding_share or 0.0), 0.0)
        return share > self.limit, f"{share:.2%} of the squared norm is unexplained, beyond rounding"


@dataclass(frozen=True)
class _Present(Gate):
    """Whether an atom itself is in the target."""

    asked: str
    name: str

    def because(self, audit: Audit) -> tuple[bool, str]:
        component = _holder(audit, self.name)
        if component is None:
            return _unnamed(audit, self.name)
        if component.identity == "relative":
            return False, f"not it, but a relative of it is in the target, at {component.coefficient:.4f}"
        perhaps = ", or a relative of it is" if component.identity == "undecided" else ""
        if self.name == component.name:
            return True, f"it is in the target{perhaps}, at {component.coefficient:.4f}"
        return True, f"it cannot be told from {component.name}, which is in the target{perhaps}"


@dataclass(frozen=True)
class _Relative(Gate):
    """Whether a relative of an atom is in the target; the atom itself is another condition's."""

    asked: str
    name: str

    def because(self, audit: Audit) -> tuple[bool, str]:
        component = _holder(audit, self.name)
        if component is None:
            return _unnamed(audit, self.name)
        where = f"in the target, at {component.coefficient:.4f}"
        if component.identity == "exact":
            exact = "it is" if self.name == component.name else f"{component.name}, from which it cannot be told, is"
            return False, f"{exact} itself {where}"
        if component.identity == "relative":
            return True, f"a relative of it is {where}"
        return True, f"it or a relative of it is {where}"


def _holder(audit: Audit, name: str) -> Component | None:
    """The component that an atom is, is a relative of, or cannot be told from."""
    return next((component for component in audit.decomposition.components if name in (component.name, *component.group)), None)


def _unnamed(audit: Audit, name: str) -> tuple[bool, str]:
    """Of an atom that no component names: whether it could hide."""
    found = audit.decomposition
    limits = {atom.name: atom.detection_limit for atom in found.absent}
    if found.test and limits.get(name) is None:
        return True, "it could not have been seen at any coefficient"
    limit = f", and would have been seen from {limits[name]:.2g} on" if found.test else ""
    return False, f"it is not named{limit}"


@dataclass(frozen=True)
class _Plain(Gate):
    """A condition without a parameter: fails where there is something to say."""

    asked: str
    troubles: Callable[[Audit], Sequence[str]]
    fine: str

    def because(self, audit: Audit) -> tuple[bool, str]:
        troubles = self.troubles(audit)
        return bool(troubles), "; ".join(troubles) or self.fine


def _texts(findings: Iterable[LicenceFinding]) -> list[str]:
    return [finding.text.removesuffix(".") for finding in findings]


def _not_verified(audit: Audit) -> list[str]:
    verdicts = {component.name: audit.verified(component.name) for component in audit.decomposition.components}
    return [
        f"{name}: {measured.verdict if measured else 'not measured'}"
        for name, measured in verdicts.items()
        if measured is None or measured.verdict != "verified"
    ]


def _no_recipe(audit: Audit) -> list[str]:
    if audit.recipe is None:
        return ["no recipe was looked for"]
    return [] if audit.recipe.answer == FOUND else [f"the answer is: {audit.recipe.answer}"]


def _relatives(audit: Audit) -> list[str]:
    words = {"relative": "a relative of {}", "undecided": "{0} or a relative of it"}
    return [
        f"{words[component.identity].format(component.name)} is in the target, at {component.coefficient:.4f}"
        for component in audit.decomposition.components
        if component.identity in words
    ]


_PLAIN: dict[str, tuple[Callable[[Audit], Sequence[str]], str]] = {
    "licence-conflict": (lambda audit: _texts(audit.licences.of_kind("conflict", "possible conflict")), "no two licences clash"),
    "licence-unknown": (lambda audit: _texts(audit.licences.of_kind("unknown")), "every licence is known"),
    "relative": (_relatives, "no component is a relative"),
    "not-verified": (_not_verified, "every component is verified"),
    "no-recipe": (_no_recipe, "a recipe makes the target"),
    "warning": (lambda audit: audit.decomposition.warnings, "no warning"),
}


_NAMED: dict[str, Callable[[str, str], Gate]] = {"component": _Present, "relative": _Relative}


def parse_gates(texts: Iterable[str], atoms: Collection[str]) -> list[Gate]:
    """Read conditions as they are typed.

    Args:
        texts: of the conditions.
        atoms: names of the dictionary's atoms.

    Raises:
        BadInput: an unknown condition, a share that is none, or a component that the dictionary does not have.
    """
    return [_parse(text, atoms) for text in texts]


def _parse(text: str, atoms: Collection[str]) -> Gate:
    kind, equals, value = text.partition("=")
    if kind in _PLAIN and not equals:
        return _Plain(text, *_PLAIN[kind])
    if kind in _NAMED and value:
        if value not in atoms:
            raise unknown_name(
                value,
                atoms,
                f"{_OPTION} {text}",
                expected="an atom of the dictionary ({})",
                otherwise="add it to the dictionary, or mend the name: what is not there cannot be found",
            )
        return _NAMED[kind](text, value)
    if kind == "unknown-share":
        return _UnknownShare(text, _share(text, value))
    raise unknown_name(text, _CHOICES, _OPTION, otherwise="write, for example, unknown-share=0.05")


def _share(text: str, value: str) -> float:
    try:
        share = float(value)
    except ValueError:
        share = math.nan
    if not 0 <= share <= 1:
        raise BadInput(expected="a share from 0 to 1", found=repr(value), where=f"{_OPTION} {text}", hint="write, for example, unknown-share=0.05")
    return share
