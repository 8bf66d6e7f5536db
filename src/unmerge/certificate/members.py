"""Which components a target holds, once their identity is known.

A component that turns out to be a relative of its atom is not the atom times a number: what the atom leaves of it is unknown, and would be blamed on
the other components. So these are measured again with the relative left in the target. And where a relative was found, another member of the
dictionary's family of near duplicates may be the very atom: each is tried in its place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from unmerge.certificate.candidates import Candidates
from unmerge.certificate.coefficients import Measured, measure
from unmerge.certificate.evidence import TensorEvidence
from unmerge.certificate.identity import Identity
from unmerge.certificate.rounding import Grid, Sample
from unmerge.vectors import Gram, TaskVector

Matrix = NDArray[np.float64]
Watch = Callable[[Iterable[str]], Iterable[str]]

#: members of a family that are tried in a relative's place at most, and how much less of it than the best they may show: the very atom shows 1,
#: its relatives at cosine .9 show .8
TRIED, SHOWN_LESS = 3, 0.05


@dataclass(frozen=True)
class Content:
    """The components of a target.

    Attributes:
        chosen: (k,) their atoms.
        measured: their coefficients, and what they leave.
        groups: of each chosen atom the others that it may be as well.
    """

    chosen: list[int]
    measured: Measured
    groups: Mapping[int, tuple[int, ...]]

    def identity(self, atom: int) -> Identity:
        """What the component is of its atom."""
        return self.measured.likeness[self.chosen.index(atom)].identity


@dataclass(frozen=True)
class Look:
    """A target, and what it takes to measure some atoms in it.

    Attributes:
        atoms, target, products: as for ``certify``.
        seen: what the tensors that are not blind say.
        dense: (n,) atoms without a low rank.
        grid: what the target was rounded to.
        watch: wraps loops over tensors.
    """

    atoms: Sequence[TaskVector]
    target: TaskVector
    products: Gram
    seen: Sequence[TensorEvidence]
    dense: NDArray[np.bool_]
    grid: Grid | None
    watch: Watch

    def components(self, chosen: Sequence[int]) -> Content:
        """Measure some atoms; those whose coefficient may be 0 are left out."""
        left = list(chosen)
        sample = Sample.of([self.atoms[atom] for atom in left], self.target, self.grid, self.watch) if self.grid and left else None
        while True:
            measured = measure(Candidates(self.atoms, self.target, self.products, self.seen, left, self.dense, sample, self.watch))
            if len(clear := measured.clear) == len(left):
                return Content(left, measured, {})
            left, sample = [left[place] for place in clear], sample.only(clear) if sample and clear else None


def settle_identity(look: Look, content: Content, families: Sequence[Sequence[int]], groups: Mapping[int, tuple[int, ...]], score: Matrix) -> Content:
    """Take for each component the member of its family that it is, and measure the others with relatives left in the target.

    Args:
        look: measures atoms.
        content: the components that passed the test.
        families: of near duplicates.
        groups: the atoms that each chosen one cannot be told from by its coefficient.
        score: (n,) the share of the expected containment that each atom shows.
    """
    told = {atom: groups.get(atom, ()) for atom in content.chosen}
    for atom in list(content.chosen):
        if atom not in content.chosen:
            continue
        (family,) = (family for family in families if atom in family)
        least = max(float(score[list(family)].max()), 0.0) - SHOWN_LESS
        told[atom] = tuple(other for other in told[atom] if score[other] >= least)
        others = [member for member in family if score[member] >= least and member not in content.chosen]
        if not others or (content.identity(atom) is Identity.EXACT and not told[atom]):
            continue
        tried = _tried(look, content.chosen, atom, others, score)
        exact = [rival for rival, other in tried.items() if _is_exact(other, rival)]
        if content.identity(atom) is Identity.EXACT:
            told[atom] = tuple(rival for rival in told[atom] if rival in exact or rival not in tried)
        elif exact:
            best = min(exact, key=lambda rival: tried[rival].measured.likeness[tried[rival].chosen.index(rival)].deviation)
            content = tried[best]
            told[best] = tuple(rival for rival in exact if rival != best)
    content, beside = _without_relatives(look, content)
    if len(beside) < len(content.chosen):
        for atom in [atom for atom in beside if told.get(atom) and content.identity(atom) is Identity.EXACT]:
            tried = _tried(look, beside, atom, told[atom], score)
            told[atom] = tuple(rival for rival in told[atom] if rival not in tried or _is_exact(tried[rival], rival))
    return replace(content, groups={atom: told.get(atom, ()) for atom in content.chosen})


def _tried(look: Look, chosen: Sequence[int], atom: int, others: Sequence[int], score: Matrix) -> dict[int, Content]:
    """The components with some others in an atom's place, those first that show most."""
    rivals = sorted(others, key=lambda member: -float(score[member]))[:TRIED]
    return {rival: look.components([rival if one == atom else one for one in chosen]) for rival in rivals}


def _is_exact(content: Content, atom: int) -> bool:
    return atom in content.chosen and content.identity(atom) is Identity.EXACT


def _without_relatives(look: Look, content: Content) -> tuple[Content, list[int]]:
    """The components, those that are their very atoms measured with the others left in the target; and which of them were measured together.

    What a relative leaves may be all that made another component undecided. So each component that is not exact is left in the target in
    turn, and it stays there whose absence leaves the others most exact. Not so where coefficients come from the target before its rounding: how
    it was rounded follows from all components together.
    """
    if content.measured.before_rounding:
        return content, content.chosen
    left = content
    while len(left.chosen) > 1 and (doubtful := [atom for atom in left.chosen if left.identity(atom) is not Identity.EXACT]):
        rests = [look.components([atom for atom in left.chosen if atom != one]) for one in doubtful]
        left = min(rests, key=lambda rest: np.mean([min(like.deviation, 1.0) for like in rest.measured.likeness] or [np.inf]))
        content = _beside(content, left)
    return content, left.chosen


def _beside(first: Content, second: Content) -> Content:
    """The components of the first measurement, those of the second as they were measured there."""
    chosen = first.chosen
    sources = [
        (first.measured, first.chosen.index(atom)) if atom not in second.chosen else (second.measured, second.chosen.index(atom)) for atom in chosen
    ]
    tensors = first.measured.tensors
    own = [dict(zip(measured.tensors, measured.by_tensor[:, place], strict=True)) for measured, place in sources]
    measured = replace(
        first.measured,
        coefficients=np.array([measured.coefficients[place] for measured, place in sources]),
        interval=np.array([measured.interval[place] for measured, place in sources]).reshape(-1, 2),
        by_tensor=np.array([[column.get(tensor, np.nan) for column in own] for tensor in tensors]).reshape(-1, len(chosen)),
        estimator=second.measured.estimator,
        profiles=tuple(measured.profiles[place] for measured, place in sources),
        likeness=tuple(measured.likeness[place] for measured, place in sources),
    )
    return Content(chosen, measured, {})
