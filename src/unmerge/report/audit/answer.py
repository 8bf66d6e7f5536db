"""The answer in one sentence, and what it rests on in a few tiles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from unmerge.auditing import Audit
from unmerge.auditing.licences import Kind
from unmerge.decomposition.result import Component
from unmerge.recipes.recover import FOUND
from unmerge.report.audit.words import counted, listed, percent
from unmerge.report.identity import called

#: a share beyond rounding that is worth a word
_WORTH_SAYING = 0.005
_FINDINGS: tuple[Kind, ...] = ("conflict", "possible conflict", "unknown")
#: names in the sentence; the rest are counted
_NAMED = 6


@dataclass(frozen=True)
class Phrase:
    """A piece of the sentence; the name of a component has its place among them, others have none."""

    text: str
    component: int | None = None


@dataclass(frozen=True)
class Tile:
    """One thing to know at a glance: good, bad, unsure, or plain; ``to`` is the section that says more."""

    title: str
    figure: str
    text: str
    look: str
    to: str


def answer(audit: Audit) -> list[Phrase]:
    """What is in the target, in one sentence."""
    found = audit.decomposition
    rest = _rest(audit)
    if not found.components:
        none = f"None of the {len(found.dictionary)} known components is in {audit.name}"
        return [Phrase(f"{none}: {rest.removeprefix(', and ')}." if rest else f"{none}.")]
    by = f" by {audit.recipe.method}" if audit.recipe and audit.proved else ""
    phrases = [Phrase(f"{_start(audit)} {_counted(found.components)} merged in{by}: ")]
    shown, more = found.components[:_NAMED], len(found.components[_NAMED:])
    pieces = [Phrase(_called(component), place) for place, component in enumerate(shown)]
    if more:
        pieces.append(Phrase(counted(more, "more", "more")))
    for left, piece in zip(range(len(pieces) - 1, -1, -1), pieces, strict=True):
        phrases += [piece, Phrase(", " if left > 1 else " and " if left else "")]
    return [*phrases, Phrase(f"{rest}.")]


def sentence(audit: Audit) -> str:
    """The answer as plain text."""
    return "".join(phrase.text for phrase in answer(audit))


def tiles(audit: Audit) -> list[Tile]:
    """Components, the rest, the recipe, the verification, the licences."""
    return [_components(audit), _unexplained(audit), *_recipe(audit), *_verified(audit), _licences(audit)]


def _start(audit: Audit) -> str:
    if audit.decomposition.base is not None:
        return f"{audit.name} is {audit.base_name} with"
    return f"{audit.name} is an adapter{f' to {audit.base_name}' if audit.base_name else ''} with"


def _counted(components: Sequence[Component]) -> str:
    """Components and relatives, counted apart."""
    relatives = sum(component.identity == "relative" for component in components)
    known = [counted(len(components) - relatives, "known component")] if len(components) > relatives else []
    return " and ".join(known + [counted(relatives, "relative of a known one", "relatives of known ones")] * (relatives > 0))


def _called(component: Component) -> str:
    subtracted = ", subtracted" if component.coefficient < 0 else ""
    return f"{called(component)} ({component.coefficient:.2f}{subtracted})"


def _rest(audit: Audit) -> str:
    left = audit.decomposition.unexplained
    share = max(left.share - (left.rounding_share or 0.0), 0.0)
    if audit.proved:
        return ", and nothing else"
    if left.components:
        unknown = counted(left.components, "that is unknown", "that are unknown")
        return f", and at least {unknown}, {percent(left.share)} of the change"
    if share > _WORTH_SAYING:
        return f", and {percent(left.share)} of the change is not explained"
    return ", and nothing else" if audit.decomposition.components else ""


def _components(audit: Audit) -> Tile:
    found = audit.decomposition
    tested = f"of {len(found.dictionary)} in the dictionary"
    if relatives := sum(component.identity == "relative" for component in found.components):
        tested += f", {counted(relatives, 'of them a relative', 'of them relatives')} of what is there"
    if found.test:
        tested += f"; tested at a level of {percent(found.test.level)}"
    return Tile("Components", str(len(found.components)), tested, "plain", "components")


def _unexplained(audit: Audit) -> Tile:
    left = audit.decomposition.unexplained
    rounding = "" if left.rounding_share is None else f"; rounding alone would leave {percent(left.rounding_share)}"
    if audit.proved:
        return Tile(
            "Unexplained", "nothing", f"the recipe makes it all; one coefficient each would leave {percent(left.share)}", "good", "unexplained"
        )
    if left.components:
        text = f"of the squared norm: about {counted(left.components, 'component')} or more, not in the dictionary{rounding}"
    else:
        text = f"of the squared norm{rounding}"
    plain = left.share - (left.rounding_share or 0.0) <= _WORTH_SAYING
    return Tile("Unexplained", percent(left.share), text, "good" if plain else "unsure", "unexplained")


def _recipe(audit: Audit) -> Sequence[Tile]:
    if audit.recipe is None:
        return ()
    method, share = audit.recipe.method, audit.recipe.identical_share
    if audit.recipe.answer != FOUND:
        return (Tile("Recipe", str(method or "none"), audit.recipe.says, "unsure", "recipe"),)
    text = f"makes {percent(share)} of the changed weights identical" if share is not None else "its masks were drawn at random, and read off"
    return (Tile("Recipe", str(method), text, "good" if share is None or audit.proved else "unsure", "recipe"),)


def _verified(audit: Audit) -> Sequence[Tile]:
    if audit.verification is None:
        return ()
    verdicts = [measured.verdict for measured in audit.verification.components]
    verified = verdicts.count("verified")
    others = {verdict: verdicts.count(verdict) for verdict in dict.fromkeys(verdicts) if verdict != "verified"}
    text = listed([f"{count} {verdict}" for verdict, count in others.items()]) or "removed one at a time: its skill is gone, the others stay"
    return (Tile("Verified", f"{verified} of {len(verdicts)}", text, "good" if verdicts and not others else "unsure", "verification"),)


def _licences(audit: Audit) -> Tile:
    conflicts, possible, unknown = (len(audit.licences.of_kind(kind)) for kind in _FINDINGS)
    text = f"{counted(unknown, 'licence')} not known" if unknown else "every one is known"
    if conflicts:
        return Tile("Licences", counted(conflicts, "conflict"), text, "bad", "licences")
    if possible:
        return Tile("Licences", counted(possible, "possible conflict"), text, "unsure", "licences")
    return Tile("Licences", "no conflict", text, "unsure" if unknown else "good", "licences")
