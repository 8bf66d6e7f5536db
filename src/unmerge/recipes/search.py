"""The recipes that make a target: every method is tried on the sets of atoms that may be in it, and what it proposes is run."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import torch

from unmerge.recipes.case import Case
from unmerge.recipes.chance.by_layer import masks_read
from unmerge.recipes.chance.drawn import Drawn
from unmerge.recipes.chance.recipe_of import recipe_of
from unmerge.recipes.methods import BY_WEIGHT, DETERMINED, SLOW
from unmerge.recipes.recipe import Recipe

#: a share of identical weights that is an answer, and one that makes a rival
ANSWER, RIVAL = 0.95, 0.5
#: a share of identical weights to the last bit that is the target itself
_SAME = 0.999
#: shares of identical weights to the last bit that are as good as one another, below that: weights of many digits leave no more
_ALIKE = 0.02
#: a share of identical weights that makes it worth while to look for a merge that computed in a wider dtype
_NEAR = 0.3
#: weights that the order of a sum may move are as good as identical; in bfloat16 that would hide another recipe
_SPACINGS = {torch.bfloat16: 0.0, torch.float16: 0.0, torch.float32: 2.0, torch.float64: 2.0}


@dataclass(frozen=True)
class Candidate:
    """A recipe that was run.

    Attributes:
        case: what it was run on.
        recipe: the recipe.
        share: of identical weights among those that change; of random masks the share that one of the sums explains.
        exact: the same share to the last bit; recipes that differ by the order of a sum differ in it.
        drawn: the masks, where they were random.
    """

    case: Case
    recipe: Recipe
    share: float
    exact: float = 0.0
    drawn: Drawn | None = None


def search(
    case: Case, changed: Sequence[str], tried: Iterable[Sequence[str]], masked: Collection[Sequence[str]], looked: list[str]
) -> list[Candidate]:
    """Recipes that make the target, and what comes near them, the best first; empty where none is an answer.

    Methods are run on a set of atoms even where the first makes the target: others may make it as well. Those that take a search are not.
    A merge that computed in float32 and was rounded to 16 bits is looked for where one that computed in 16 bits comes near, and no more.

    Args:
        case: target and models.
        changed: the tensors that the target or an atom changes.
        tried: sets of atoms, the likeliest first; the search ends with the first that gives an answer.
        masked: those of them that random masks are read off for, which takes longest.
        looked: is told what was tried.
    """
    for atoms in tried:
        cases = [case, *([wider] if (wider := case.wider) is not None else [])]
        found: list[Candidate] = []
        for slow in (False, True):
            for one in cases:
                near = max((candidate.exact for candidate in found), default=0.0)
                if near < _SAME and (one is case or near >= _NEAR):
                    found += _determined(one, changed, atoms, slow, looked)
        if atoms in masked and max((candidate.share for candidate in found), default=0.0) < ANSWER:
            for one in (one.everywhere(changed) for one in cases):
                looked.append(f"random masks of {', '.join(atoms)}, computed in {one.dtype_name}")
                reading = masks_read(one, atoms)
                if reading is not None and reading.speaks:
                    found.append(Candidate(one, one.written(recipe_of(one, reading)), reading.explained, drawn=reading))
                    break
        if not found:
            continue
        found = _ranked(found)
        if found[0].drawn is not None or found[0].share >= ANSWER:
            return [candidate for candidate in found if candidate.share >= RIVAL]
    return []


def _determined(case: Case, changed: Sequence[str], atoms: Sequence[str], slow: bool, looked: list[str]) -> list[Candidate]:
    """What the quick or the slow ones of the methods without random masks propose, run; slow ones until one makes the target."""
    found: list[Candidate] = []
    everywhere = case.everywhere(changed)
    for name, candidates in DETERMINED.items():
        if (name in SLOW) is not slow or (slow and any(candidate.exact >= _SAME for candidate in found)):
            continue
        looked.append(f"{name} of {', '.join(atoms)}, computed in {case.dtype_name}")
        one = everywhere if name in BY_WEIGHT else case
        found += [_run(one, recipe) for recipe in candidates(one, atoms)]
    return found


def _ranked(found: Sequence[Candidate]) -> list[Candidate]:
    """Masks that were read first, then the most identical weights; where none is the target itself, the plainest of those that come as near."""
    ranked = sorted(found, key=lambda candidate: (candidate.drawn is None, candidate.share < ANSWER, -candidate.exact, -candidate.share))
    first = ranked[0]
    if first.drawn is not None or first.share < ANSWER or first.exact >= _SAME:
        return ranked
    near = [candidate for candidate in ranked if candidate.share >= ANSWER and candidate.exact >= first.exact - _ALIKE]
    plainest = min(near, key=lambda candidate: candidate.recipe.settings)
    return [plainest, *(candidate for candidate in ranked if candidate is not plainest)]


def _run(case: Case, recipe: Recipe) -> Candidate:
    exact, spacings = case.identical(recipe), _SPACINGS[case.dtype]
    return Candidate(case, case.written(recipe), case.identical(recipe, spacings=spacings) if spacings else exact, exact)
