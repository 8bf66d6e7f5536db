"""Licences of a target and of what is in it: what the cards say, where they clash, and where nobody says anything.

The rules, for the base and every component found (and every atom that a component cannot be told from):

1. a licence that forbids derivatives clashes with being in a merge;
2. two share-alike licences clash unless they go together;
3. a share-alike licence allows no further terms: it clashes with another's, be they non-commercial or on use;
4. GPL-2.0 clashes with Apache-2.0;
5. the target's own licence clashes with an ingredient's share-alike that it is not, and with terms that it does not pass on.

A licence that is missing, or whose terms are not in the table, is unknown; so is the licence of whatever is not in the dictionary. Of a component
that is a relative of an atom the atom's licence may apply: the relative's own is unknown, and what would clash is a possible conflict.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel

from unmerge.auditing.licence_terms import Term, go_together, plain, terms_of
from unmerge.auditing.model_card import read_card

Role = Literal["target", "base", "component", "candidate", "relative"]
Kind = Literal["conflict", "possible conflict", "unknown"]
#: what a share-alike licence does not let others add
_RESTRICTIONS: tuple[Term, ...] = ("non-commercial", "use-restrictions")
_ASKS: dict[Term, str] = {
    "share-alike": "asks that what is made of it bear the same licence",
    "non-commercial": "allows no commercial use",
    "no-derivatives": "allows nothing to be made of it",
    "use-restrictions": "restricts what it may be used for",
}


class Licence(BaseModel):
    """What one card says.

    Attributes:
        of: the name of the model or adapter.
        role: the target, its base, a component, an atom that a component cannot be told from (candidate), or one of which a component is a
            relative: then the licence may apply.
        stated: identifiers as the card writes them; all of them hold.
        spdx: those that SPDX has, as SPDX writes them.
        name, link: of a licence without an identifier.
        terms: what they ask, together; None where that is not known.
        card: SHA-256 of the card, None without one.
        trouble: why nothing is known.
    """

    of: str
    role: Role
    stated: list[str] = []
    spdx: list[str] = []
    name: str | None = None
    link: str | None = None
    terms: list[Term] | None = None
    card: str | None = None
    trouble: str | None = None

    @property
    def shown(self) -> str:
        """The licence in a word or two."""
        return self.name or " and ".join(self.spdx if len(self.spdx) == len(self.stated) else self.stated) or "not stated"


class LicenceFinding(BaseModel):
    """A conflict, certain or possible, or a licence that is not known: between whom, and in words."""

    kind: Kind
    between: list[str]
    text: str


class LicenceReport(BaseModel):
    """Every licence, and what was found of them."""

    licences: list[Licence]
    findings: list[LicenceFinding]

    def of_kind(self, *kinds: Kind) -> list[LicenceFinding]:
        """The findings of some kinds."""
        return [finding for finding in self.findings if finding.kind in kinds]


def read_licence(folder: Path, of: str, role: Role) -> Licence:
    """What the card in a folder says of the licence."""
    card = read_card(folder)
    known = [terms_of(identifier) for identifier in card.licences]
    complete = bool(known) and all(known)
    asked: set[Term] = {term for terms in known if terms for term in terms.asks}
    return Licence(
        of=of,
        role=role,
        stated=list(card.licences),
        spdx=[terms.spdx for terms in known if terms and terms.spdx],
        name=card.name,
        link=card.link,
        terms=sorted(asked) if complete else None,
        card=card.digest,
        trouble=card.trouble or (None if complete else "its terms are not in the table"),
    )


def judge(licences: Sequence[Licence], strangers: int = 0) -> LicenceReport:
    """Apply the rules.

    Args:
        licences: of the target, the base, the components and what they cannot be told from.
        strangers: how many components are not in the dictionary, as far as that is known.
    """
    targets, ingredients = ([licence for licence in licences if (licence.role == "target") is wanted] for wanted in (True, False))
    findings = [*_alone(ingredients)]
    for one, other in itertools.combinations(ingredients, 2):
        findings += _pair(one, other)
    for target, ingredient in itertools.product(targets, ingredients):
        findings += _passed_on(target, ingredient)
    findings += [
        LicenceFinding(kind="unknown", between=[licence.of], text=_unknown(licence))
        for licence in licences
        if licence.terms is None or licence.role == "relative"
    ]
    if strangers:
        several = "component is" if strangers == 1 else "components are"
        text = f"At least {strangers} {several} not in the dictionary: nobody can say under which licence."
        findings.append(LicenceFinding(kind="unknown", between=[], text=text))
    return LicenceReport(licences=list(licences), findings=findings)


def _alone(ingredients: Iterable[Licence]) -> Iterator[LicenceFinding]:
    for licence in ingredients:
        if licence.terms and "no-derivatives" in licence.terms:
            yield _conflict([licence], f"{_called(licence)} {_ASKS['no-derivatives']}, and the target is made of it.")


def _pair(one: Licence, other: Licence) -> Iterator[LicenceFinding]:
    if one.terms is None or other.terms is None:
        return
    if not _together(_share_alike(one), _share_alike(other)):
        yield _conflict([one, other], f"{_called(one)} {_ASKS['share-alike']}, and so does {_called(other)}.")
    for strict, adding in ((one, other), (other, one)):
        added = [term for term in _RESTRICTIONS if term in (adding.terms or []) and term not in (strict.terms or [])]
        if _share_alike(strict) and added:
            asks = " and ".join(_ASKS[term] for term in added)
            yield _conflict([strict, adding], f"{_called(strict)} lets nobody add terms, but {_called(adding)} {asks}.")
        if "gpl-2.0" in map(plain, strict.stated) and "apache-2.0" in map(plain, adding.stated):
            yield _conflict([strict, adding], f"{_called(strict)} does not go with {_called(adding)}.")


def _passed_on(target: Licence, ingredient: Licence) -> Iterator[LicenceFinding]:
    """Where the target's own licence drops what an ingredient's asks."""
    if target.terms is None or ingredient.terms is None:
        return
    dropped: list[Term] = [] if _together(_share_alike(ingredient), target.stated) else ["share-alike"]
    dropped += [term for term in _RESTRICTIONS if term in ingredient.terms and term not in target.terms]
    if dropped:
        asks = " and ".join(_ASKS[term] for term in dropped)
        yield _conflict([target, ingredient], f"{target.of} is passed on under {target.shown}, but {_called(ingredient)} {asks}.")


def _share_alike(licence: Licence) -> list[str]:
    """Those of its licences that are share-alike."""
    return [identifier for identifier in licence.stated if (terms := terms_of(identifier)) and "share-alike" in terms.asks]


def _together(some: Iterable[str], others: Iterable[str]) -> bool:
    return all(go_together(one, other) for one, other in itertools.product(some, others))


def _unknown(licence: Licence) -> str:
    if licence.role == "relative":
        stated = f"that of {licence.of} ({licence.shown}) may apply" if licence.stated else f"{licence.of} has none ({licence.trouble})"
        return f"Nobody can say under which licence the relative of {licence.of} is: {stated}."
    return f"{_called(licence) if licence.stated else licence.of}: {licence.trouble}."


def _called(licence: Licence) -> str:
    return f"a relative of {licence.of} ({licence.shown}, which may apply)" if licence.role == "relative" else f"{licence.of} ({licence.shown})"


def _conflict(between: Sequence[Licence], text: str) -> LicenceFinding:
    kind: Kind = "possible conflict" if any(licence.role == "relative" for licence in between) else "conflict"
    return LicenceFinding(kind=kind, between=[licence.of for licence in between], text=text)
