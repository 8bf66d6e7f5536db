"""The certificate of one target: which atoms are in it, with which coefficients, and what is left.

1. Every atom is tested for presence; near duplicates are settled among themselves or reported as a group.
2. Coefficients. Least squares first; what it leaves tells whether anything unknown is in the target. If there is, the unknown is
   projected off, and an atom whose interval holds 0 is not named: a full fine-tune has more in common with adapters to the same base than
   these have with each other, and holds none. If there is not, and rounding explains what is left, the intervals that it leaves decide.
3. What is left: its rank, and how many components of the dictionary's usual rank that is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from threadpoolctl import threadpool_limits

from unmerge.certificate.correlation import CorrelationTest
from unmerge.certificate.duplicates import families, leak, settle
from unmerge.certificate.evidence import TensorEvidence, gather
from unmerge.certificate.identity import RELATED, Identity, Likeness
from unmerge.certificate.members import Content, Look, settle_identity
from unmerge.certificate.own_cosine import LEAST as LEAST_COSINE
from unmerge.certificate.own_cosine import own_cosine
from unmerge.certificate.presence import LEVEL, SURROGATES, Presence, PresenceTest, apparent, stand_ins, surrogate_weights
from unmerge.certificate.profile import Group
from unmerge.certificate.rounding import Grid, Sample
from unmerge.certificate.rounding_fit import RoundingFit, rounding_fit
from unmerge.certificate.systems import solve
from unmerge.vectors import Gram, TaskVector

Matrix = NDArray[np.float64]
Watch = Callable[[Iterable[str]], Iterable[str]]

#: an atom with at most this p-value may be proven by the weights where subspaces do not suffice
SUSPECTED = 0.05
#: an atom that shows this share of what it would show, and of which nothing can be subtracted, is named as a relative (cosine .77). Below,
#: adapters from one initialisation come near it (.45 seen at cosine .33)
RELATED_FROM = 0.6
#: and it must contribute at least this share of what the largest component does
LEAST = 0.01


@dataclass(frozen=True)
class Found:
    """An atom that is in the target.

    Attributes:
        atom: its place in the dictionary.
        coefficient: the one that acted.
        interval: of the coefficient, at the level ``systems.CONFIDENCE``.
        p_value: of the hypothesis that the atom itself is not in the target, neither it nor one of its group.
        q_value: adjusted over the dictionary (Benjamini and Hochberg 1995).
        group: other atoms that it may be as well.
        by_tensor: what each tensor says of the coefficient by itself.
        agreement: 1 where all tensors say the same, 0 where they differ by as much as the coefficient (median over tensors).
    """

    atom: int
    coefficient: float
    interval: tuple[float, float]
    p_value: float
    q_value: float
    group: tuple[int, ...]
    by_tensor: Mapping[str, float]
    agreement: float
    likeness: Likeness
    profile: tuple[Group, ...]


@dataclass(frozen=True)
class Certificate:
    """What is in a target; n atoms.

    Attributes:
        found: the components, in the order of the dictionary.
        presence: the test.
        p_value: (n,) of the hypothesis that an atom itself is not in the target: of a component as in ``found``, of another one 1 where it passed
            the test of presence, and was told from a component of its family or has no coefficient.
        dense: (n,) atoms without a low rank, which were tested by correlation.
        containment: (n,) share of each atom's squared norm, of its leading directions, that lies in the target's signal subspaces; NaN
            for atoms without a low rank, or where every tensor is blind.
        detection_limits: (n,) the smallest coefficient at which an atom would have been seen; NaN where none would do.
        blind: tensors that the target's signal fills; they are not counted.
        unknown_rank: rank above the noise of what the components leave; None where no tensor can tell.
        unknown_components: how many components of the dictionary's usual rank that is, at least: weak ones drown in noise; None where
            no tensor can tell, or the target was trimmed.
        trimmed: whether small changes were trimmed, as ties does: then no one coefficient acted.
        rounding_share: what rounding alone would leave of a target made of these components; None without a grid.
        rounded: how the weights were rounded, where that and the components explain them; its places are those of ``found``.
        estimator: how the coefficients were found.
        stand_ins: how many relatives were made up for the null distribution; 0 where the dictionary has enough.
        proven: components that passed no test, but without which the others do not explain the weights.
        svd_error: the largest ||T v - s u|| / s of the singular triples that were counted; 0 where all decompositions were full.
        variant_of: atoms that pass the test because they are like a component that they were told from, with that component.
    """

    found: tuple[Found, ...]
    presence: Presence
    p_value: Matrix
    dense: NDArray[np.bool_]
    containment: Matrix
    detection_limits: Matrix
    blind: tuple[str, ...]
    unknown_rank: int | None
    unknown_components: int | None
    trimmed: bool
    rounding_share: float | None
    estimator: str
    stand_ins: int
    proven: tuple[int, ...]
    variant_of: Mapping[int, int]
    svd_error: float = 0.0
    rounded: RoundingFit | None = None


# thousands of small problems: with more threads these wait for each other, ten times as long
@threadpool_limits.wrap(limits=1, user_api="blas")  # type: ignore[untyped-decorator]
def certify(
    atoms: Sequence[TaskVector],
    target: TaskVector,
    products: Gram,
    grid: Grid | None = None,
    watch: Watch = iter,
    level: float = LEVEL,
    seed: int = 0,
) -> Certificate:
    """Test every atom of a dictionary against a target, and measure those that are in it.

    Args:
        atoms: n of them.
        target: the target.
        products: their inner products over all weights (``vectors.gram``).
        grid: what the target was rounded to; None for an adapter.
        watch: wraps loops over tensors, for a progress bar.
        level: of the false discovery rate.
        seed: of the surrogate targets.
    """
    whole = products.gram.sum(0)
    alike = families(whole)
    made_up = stand_ins(alike)
    weights = surrogate_weights(SURROGATES, len(atoms) + made_up, seed, alike)
    evidence = gather(atoms, target, weights, products.tensors, watch)
    test = PresenceTest(evidence, weights, alike, level)
    presence, limits = test.presence_in_parts(products), test.detection_limits(apparent(products, products.tensors))
    if (dense := _without_rank(evidence, products)).any():
        by_correlation = CorrelationTest(products, level)
        presence = presence.with_others(by_correlation.presence(), dense, level)
        limits = np.where(dense, by_correlation.detection_limits(), limits)
    present = np.flatnonzero(presence.present).tolist()
    chosen, groups = _settled(products, alike, present, dense)
    seen = [item for item in evidence if not item.is_blind]
    look = Look(atoms, target, products, seen, dense, grid, watch)
    suspected = [atom for atom in np.flatnonzero(presence.p_value <= SUSPECTED).tolist() if atom not in present]
    if grid and suspected and (proven := _proven(atoms, target, grid, products, sorted([*chosen, *suspected]), watch)):
        chosen, groups = proven, {atom: groups.get(atom, ()) for atom in proven}
    content = settle_identity(look, look.components(chosen), alike, groups, presence.score)
    measured = content.measured
    found = [_found(content, place, atom, presence, _best(alike, presence, atom)) for place, atom in enumerate(content.chosen)]
    found += [
        _related(content, atom, products, RELATED if not dense[atom] else replace(RELATED, identity=Identity.UNDECIDED))
        for atom in _only_related(chosen, content, alike, presence)
    ]
    parts = {atom: measured.profiles[place] for place, atom in enumerate(content.chosen)}
    found = [
        one
        for one in found
        if one.likeness.identity is not Identity.RELATIVE or dense[one.atom] or _is_like(one, found, seen, parts.get(one.atom, ()))
    ]
    p_value = np.where(presence.present, 1.0, np.maximum(presence.p_value, np.where(dense, 0.0, presence.shown_p_value())))
    p_value[[one.atom for one in found]] = [one.p_value for one in found]
    q_value = np.asarray(stats.false_discovery_control(p_value)) if len(p_value) else p_value
    return Certificate(
        found=tuple(replace(one, q_value=float(q_value[one.atom])) for one in sorted(found, key=lambda one: one.atom)),
        presence=presence,
        p_value=p_value,
        containment=np.where(dense, np.nan, _containment(seen, len(atoms))),
        detection_limits=limits,
        dense=dense,
        blind=tuple(item.tensor for item in evidence if item.is_blind),
        unknown_rank=measured.unknown_rank,
        unknown_components=measured.unknown_components,
        trimmed=measured.trimmed,
        rounding_share=measured.rounding_share,
        estimator=measured.estimator,
        stand_ins=made_up,
        proven=tuple(atom for atom in content.chosen if not presence.present[_best(alike, presence, atom)]),
        variant_of=_variants(alike, present, content.chosen, content.groups),
        svd_error=max((item.error for item in seen), default=0.0),
        rounded=measured.rounded,
    )


def _without_rank(evidence: Sequence[TensorEvidence], products: Gram) -> NDArray[np.bool_]:
    """(n,) which atoms have most of their squared norm outside matrices of low rank, in the tensors that the target changes."""
    atoms, changed = len(products.atoms), products.norm_squared > 0
    low = np.zeros(atoms)
    for item in evidence:
        owners = np.unique(item.owner[item.owner < atoms])
        low[owners] += products.gram[products.tensors.index(item.tensor), owners, owners]
    return np.asarray(low < np.einsum("mii->i", products.gram[changed]) / 2)


def _settled(
    products: Gram, alike: Sequence[Sequence[int]], present: Sequence[int], dense: NDArray[np.bool_]
) -> tuple[list[int], dict[int, tuple[int, ...]]]:
    """The present atoms, one for each component, and the others that it may be as well.

    A family with a present member is settled among all of its members, together with the other present atoms: which of them shows best
    does not say which one is there.
    """
    chosen: list[int] = []
    groups: dict[int, tuple[int, ...]] = {}
    candidates = sorted(member for family in alike if any(atom in present for atom in family) for member in family)
    gram, correlation = products.gram[:, candidates][:, :, candidates], products.correlation[:, candidates]
    for family in alike:
        members = [atom for atom in family if atom in candidates]
        if len(members) < 2:
            settled: list[tuple[int, tuple[int, ...]]] = [(atom, ()) for atom in members]
        else:
            places = [candidates.index(atom) for atom in members]
            settled = [
                (candidates[one.best], tuple(candidates[other] for other in one.group if other != one.best))
                for one in settle(places, gram, correlation, float(leak(products, candidates, dense).max()))
            ]
        chosen += [atom for atom, _ in settled]
        groups.update(settled)
    return sorted(chosen), groups


def _proven(atoms: Sequence[TaskVector], target: TaskVector, grid: Grid, products: Gram, candidates: list[int], watch: Watch) -> list[int] | None:
    """The candidates without which the others do not explain every weight within rounding, if all together do.

    Where rounding leaves little to see, subspaces may only suspect an atom; but when a few atoms explain every weight, those without
    which they do not are in the target.
    """
    sample = Sample.of([atoms[atom] for atom in candidates], target, grid, watch)
    first = solve(products.gram.sum(0)[np.ix_(candidates, candidates)], products.correlation.sum(0)[candidates])
    rounded = rounding_fit(sample, first)
    if not rounded.explains:
        return None
    fitted, (low, high) = rounded.coefficients, rounded.interval.T
    needed = [place for place in range(len(candidates)) if low[place] > 0 or high[place] < 0]
    sizes = np.abs(fitted) * np.sqrt(np.einsum("mii->i", products.gram)[candidates])
    needed = [place for place in needed if sizes[place] >= LEAST * sizes.max()]
    return [candidates[place] for place in needed] or None


def _variants(alike: Sequence[Sequence[int]], present: Sequence[int], chosen: Sequence[int], groups: Mapping[int, tuple[int, ...]]) -> dict[int, int]:
    named = {*chosen, *(other for group in groups.values() for other in group)}
    first = {member: atom for family in alike for atom in reversed(chosen) if atom in family for member in family}
    return {atom: first[atom] for atom in present if atom in first and atom not in named}


def _best(alike: Sequence[Sequence[int]], presence: Presence, atom: int) -> int:
    """The member of an atom's family with the smallest p-value."""
    (family,) = (family for family in alike if atom in family)
    return min(family, key=lambda member: float(presence.p_value[member]))


def _found(content: Content, place: int, atom: int, presence: Presence, best: int) -> Found:
    measured = content.measured
    coefficient, own = float(measured.coefficients[place]), measured.by_tensor[:, place]
    low, high = measured.interval[place]
    scatter = np.median(np.abs(own[np.isfinite(own)] / coefficient - 1)) if coefficient and np.isfinite(own).any() else 1.0
    likeness = measured.likeness[place]
    return Found(
        atom=atom,
        coefficient=coefficient,
        interval=(float(low), float(high)),
        p_value=max(float(presence.p_value[best]), likeness.p_value),
        q_value=1.0,
        group=content.groups[atom],
        by_tensor={name: float(value) for name, value in zip(measured.tensors, own, strict=True) if np.isfinite(value)},
        agreement=float(max(1 - scatter, 0.0)),
        likeness=_claim(likeness, content.groups[atom], measured.trimmed),
        profile=measured.profiles[place] if likeness.identity is not Identity.RELATIVE else (),
    )


def _only_related(chosen: Sequence[int], content: Content, alike: Sequence[Sequence[int]], presence: Presence) -> list[int]:
    """Atoms that passed the test and have no coefficient, although they show too much to be strangers; none of whose family is a component."""
    named = {member for family in alike if any(atom in family for atom in content.chosen) for member in family}
    return [atom for atom in chosen if atom not in named and presence.score[atom] >= RELATED_FROM and presence.p_value[atom] <= LEVEL]


def _related(content: Content, atom: int, products: Gram, likeness: Likeness) -> Found:
    """A relative of an atom, with the coefficient that least squares gives it beside the components."""
    gram, correlation = products.gram.sum(0), products.correlation.sum(0)
    coefficient = float((correlation[atom] - gram[atom, content.chosen] @ content.measured.coefficients) / gram[atom, atom])
    return Found(atom, coefficient, (-np.inf, np.inf), likeness.p_value, 1.0, (), {}, 0.0, likeness, ())


def _is_relative(one: Found, dense: NDArray[np.bool_]) -> bool:
    """Whether a relative is claimed of an atom that has directions of its own."""
    return one.likeness.identity is Identity.RELATIVE and not dense[one.atom]


def _is_like(one: Found, found: Sequence[Found], seen: Sequence[TensorEvidence], parts: Sequence[Group]) -> bool:
    """Whether a relative shows in its atom's own directions, by itself and beside the other components, in the parts of the model it acts in."""
    others = {other.atom: other.coefficient for other in found if other is not one}
    sign, acts = np.sign(one.coefficient), [tensor for part in parts if part.coefficient * one.coefficient > 0 for tensor in part.tensors]
    return all(sign * own_cosine(seen, one.atom, given, acts or None) >= LEAST_COSINE for given in ({}, others))


def _claim(likeness: Likeness, group: Sequence[int], trimmed: bool) -> Likeness:
    """No atom is claimed that cannot be told from another one, nor where small changes were trimmed: that leaves something along every atom."""
    if group or trimmed:
        return replace(likeness, identity=Identity.UNDECIDED)
    return likeness


def _containment(seen: Sequence[TensorEvidence], atoms: int) -> Matrix:
    contained, energy = np.zeros(atoms), np.zeros(atoms)
    for item in seen:
        real = item.owner < atoms
        square = item.values[real] ** 2
        np.add.at(contained, item.owner[real], square * item.containment[real])
        np.add.at(energy, item.owner[real], square)
    return np.asarray(np.divide(contained, energy, out=np.full(atoms, np.nan), where=energy > 0))
