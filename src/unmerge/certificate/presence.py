"""The containment certificate: is an atom in the target, whatever else is?

If T = c B A + R with R of low rank and independent of the atom, the columns of B lie in T's column space and the rows of A in
its row space. So for each atom

    H0: the atom is not in the target; what it shares with the target's signal, it shares as other adapters to this base do.

Score: over tensors and leading directions, containment in the target's signal subspaces, relative to the containment that
theory expects of the atom if it were present at its apparent coefficient:

    score = sum w k / sum w^2,    k = |U^T u|^2 |V^T v|^2,    w = E[k | present]

About 1 for an atom that is present, whatever the noise. Under H0 it is not near 0, since adapters to one base share
directions: the null distribution comes from surrogate targets made of the dictionary's other atoms, at the target's own
signal rank in every tensor. Its logit is close to normal; the p-value is a Student t tail. Tensors that the target's signal
fills are blind: everything is contained in them, so they are not counted. Near duplicates of an atom are left out of its
surrogates: H0 speaks of the family, and which member it is must be settled otherwise.

An atom may act in a part of the model alone (layer gradients and filters are everyday settings of a merge). So the test is made over all
tensors, and again over those of each layer and of each kind of module; the p-value is the smallest one, multiplied by how many tests were
made (Bonferroni; half of the level belongs to the test over all tensors).

H0 speaks of atoms that are no more alike than the dictionary's. Real adapters come in families, and a target may hold a relative
that is nearer: it shows a part of what the atom would show, in every tensor. So the p-value is no smaller than that of a second
hypothesis, that the atom's share of the expected containment is SHOWN or less; its error is the spread over tensors (jackknife).
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from unmerge.certificate.evidence import TensorEvidence
from unmerge.vectors import Gram, kind_of, layer_of

Matrix = NDArray[np.float64]

#: surrogate targets, and how many atoms each holds
SURROGATES, HELD = 80, (2, 3, 4, 5)
#: how many surrogates hold none of a family, at least: its null distribution
WITHOUT = 30
#: an atom needs this many others in the surrogates, or else STAND_INS relatives of every atom are made up
OTHERS, STAND_INS = 5, 4
#: an atom counts as present only when it shows at least this share of what a present one would: more than its relatives show of it
SHOWN = 0.4
#: the smallest coefficient that weights are made for
FLOOR = 0.05
#: the null's spread on the logit scale is not believed to be smaller
LEAST_SPREAD = 0.15
#: default level of the false discovery rate
LEVEL = 0.001
#: an atom that is expected to show less than this (summed squares of expected containments) cannot be tested
WEIGHT = 0.1
#: an atom would have been seen at a coefficient where this share of the containment that theory expects passes the test
SEEN = 0.8
#: scores are kept this far from 0 and 1
_CLIP = 1e-4
#: detection limits are sought between these, this many halvings deep
_LIMITS, _HALVINGS = (1e-6, 1e2), 24


@dataclass(frozen=True)
class Presence:
    """The outcome of the test, for each of n atoms.

    Attributes:
        score: (n,) share of the expected containment that is there; about 1 when present, 0 where nothing could show.
        p_value: (n,) of H0; 1 where nothing could show.
        q_value: (n,) adjusted over the dictionary (Benjamini and Hochberg 1995).
        present: (n,) q at most the level, and score at least SHOWN.
        tensors: (n,) how many tensors were counted.
        error: (n,) of the score, by the jackknife over tensors; infinite where fewer than three were counted.
    """

    score: Matrix
    p_value: Matrix
    q_value: Matrix
    present: NDArray[np.bool_]
    tensors: NDArray[np.int64]
    error: Matrix

    def shown_p_value(self) -> Matrix:
        """(n,) of the hypothesis that an atom shows no more than SHOWN of what it would show if it were present."""
        freedom = np.maximum(self.tensors - 1, 1)
        distance = np.divide(self.score - SHOWN, self.error, out=np.where(self.score > SHOWN, np.inf, -np.inf), where=self.error > 0)
        told = np.isfinite(self.error)
        return np.where(told, stats.t.sf(np.where(told, distance, 0.0), freedom), np.where(self.score >= SHOWN, 0.0, 1.0))

    def with_others(self, other: Presence, chosen: NDArray[np.bool_], level: float) -> Presence:
        """The outcome with some atoms tested in another way; adjusted over all of them again."""
        p_value = np.where(chosen, other.p_value, self.p_value)
        q_value = np.asarray(stats.false_discovery_control(p_value))
        enough = np.where(chosen, True, self.score >= SHOWN)
        tensors = np.where(chosen, other.tensors, self.tensors)
        error = np.where(chosen, other.error, self.error)
        return Presence(np.where(chosen, other.score, self.score), p_value, q_value, (q_value <= level) & enough, tensors, error)


def stand_ins(families: Sequence[Sequence[int]]) -> int:
    """How many relatives to make up: none where every atom has enough others outside its own family."""
    atoms = sum(len(family) for family in families)
    fewest = atoms - max((len(family) for family in families), default=0)
    return 0 if fewest >= OTHERS else STAND_INS * atoms


def surrogate_weights(count: int, atoms: int, seed: int, families: Sequence[Sequence[int]] = ()) -> Matrix:
    """(count or more, atoms) random merges of a few atoms, stand-ins among them: how many, which, and with which weights (.2 to 1.2).

    For each family at least WITHOUT of them leave it out.
    """
    rng = np.random.default_rng(seed)
    rows = [_draw(rng, np.arange(atoms), atoms) for _ in range(count)]
    for family in families:
        others = np.setdiff1d(np.arange(atoms), family)
        missing = WITHOUT - sum(not row[list(family)].any() for row in rows)
        rows += [_draw(rng, others, atoms) for _ in range(missing if len(others) else 0)]
    return np.array(rows)


def _draw(rng: np.random.Generator, pool: NDArray[np.int64], atoms: int) -> Matrix:
    row, held = np.zeros(atoms), min(int(rng.choice(HELD)), max(len(pool) - 1, 1))
    row[rng.choice(pool, held, replace=False)] = rng.uniform(0.2, 1.2, held)
    return row


class PresenceTest:
    """The test of n atoms, for one target.

    Args:
        evidence: from ``gather``.
        weights: (surrogates, n + stand-ins) of the surrogates in the evidence.
        families: atoms too alike to be in each other's surrogates; every atom in one of them.
        level: of the false discovery rate.
    """

    def __init__(self, evidence: Sequence[TensorEvidence], weights: Matrix, families: Sequence[Sequence[int]], level: float = LEVEL) -> None:
        self.seen = [item for item in evidence if not item.is_blind]
        self.size = sum(len(family) for family in families)
        self.level = level
        family_of = {atom: list(family) for family in families for atom in family}
        self._usable = np.array([(weights[:, family_of[atom]] == 0).all(1) for atom in range(self.size)])

    def presence(self, coefficients: Matrix) -> Presence:
        """Test every atom.

        Args:
            coefficients: (n,) apparent coefficients, at which presence would be expected to show.
        """
        contained, size, null = self._sums(_weighing(coefficients))
        whole = size.sum(0)
        score = np.divide(contained.sum(0), whole, out=np.zeros(self.size), where=whole > WEIGHT)
        p_value = self._p_value(score, whole, null)
        q_value = np.asarray(stats.false_discovery_control(p_value))
        counted = np.array([sum(bool((item.owner == atom).any()) for item in self.seen) for atom in range(self.size)], dtype=np.int64)
        error = _jackknife(contained, size)
        return Presence(score, p_value, q_value, (q_value <= self.level) & (score >= SHOWN), counted, error)

    def presence_in_parts(self, products: Gram) -> Presence:
        """Test every atom over all tensors, and over the tensors of each layer and of each kind.

        Args:
            products: of the atoms and the target; an atom's apparent coefficient in a part is what it would have there by itself.
        """
        views = [self, *(_over(self, part) for part in _parts(self.seen))]
        found = [view.presence(apparent(products, [item.tensor for item in view.seen])) for view in views]
        if len(views) == 1:
            return found[0]
        factors = np.array([2.0, *[2.0 * (len(views) - 1)] * (len(views) - 1)])[:, None]
        p_values = np.minimum(np.array([one.p_value for one in found]) * factors, 1.0)
        scores = np.array([one.score for one in found])
        p_value = p_values.min(0)
        q_value = np.asarray(stats.false_discovery_control(p_value)) if len(p_value) else p_value
        # of the views that show enough the one that says most; of all of them where none shows enough
        best = np.where(scores >= SHOWN, p_values, p_values + 1).argmin(0)
        told = np.where((scores >= SHOWN).any(0), best, 0)
        atoms = np.arange(self.size)
        there = (p_values[told, atoms] <= _threshold(p_value, q_value, self.level)) & (scores[told, atoms] >= SHOWN)
        return replace(
            found[0],
            score=scores[told, atoms],
            p_value=p_value,
            q_value=q_value,
            present=there,
            error=np.array([one.error for one in found])[told, atoms],
            tensors=np.array([one.tensors for one in found])[told, atoms],
        )

    def detection_limits(self, coefficients: Matrix) -> Matrix:
        """(n,) the smallest coefficient at which each atom would have been seen; NaN where none would do.

        Args:
            coefficients: (n,) apparent coefficients; what an atom would have acted with comes on top of them.
        """
        low, high = (np.full(self.size, bound) for bound in np.log(_LIMITS))
        shown = self._would_show(coefficients, np.exp(high))
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            seen = self._would_show(coefficients, np.exp(middle))
            low, high = np.where(seen, low, middle), np.where(seen, middle, high)
        return np.where(shown, np.exp(high), np.nan)

    def _would_show(self, apparent: Matrix, planted: Matrix) -> NDArray[np.bool_]:
        by_tensor, sizes, null = self._sums(_weighing(apparent + planted), planted)
        contained, size = by_tensor.sum(0), sizes.sum(0)
        score = np.divide(SEEN * contained, size, out=np.zeros(self.size), where=size > WEIGHT)
        return np.asarray((self._p_value(score, size, null) <= self.level / self.size) & (score >= SHOWN))

    def _sums(self, weighing: Matrix, planted: Matrix | None = None) -> tuple[Matrix, Matrix, Matrix]:
        """(m, n) sums of w k and of w^2 in each tensor of the target, (surrogates, n) of w k in the surrogates.

        Args:
            weighing: (n,) the coefficients that w is expected at.
            planted: (n,) coefficients that k is expected at, instead of what was seen.
        """
        top, bottom = np.zeros((len(self.seen), self.size)), np.zeros((len(self.seen), self.size))
        null = np.zeros((self._usable.shape[1], self.size))
        for row, item in enumerate(self.seen):
            real = item.owner < self.size  # stand-ins are not tested
            owner, starts = np.unique(item.owner[real], return_index=True)  # directions lie atom by atom
            expected = item.expected(weighing)[real]
            containment = item.containment if planted is None else item.expected(planted)
            top[row, owner] = np.add.reduceat(expected * containment[real], starts)
            bottom[row, owner] = np.add.reduceat(expected**2, starts)
            null[:, owner] += np.add.reduceat(item.surrogate[:, real] * expected, starts, axis=1)
        return top, bottom, null

    def _p_value(self, score: Matrix, size: Matrix, null: Matrix) -> Matrix:
        p_value = np.ones(self.size)
        for atom in np.flatnonzero(size > WEIGHT):
            logits = _logit(null[self._usable[atom], atom] / size[atom])
            if len(logits) > 2:  # a few of everybody's directions are not enough to know how far they scatter
                spread = max(float(logits.std(ddof=1)), LEAST_SPREAD) * np.sqrt(1 + 1 / len(logits))
                p_value[atom] = stats.t.sf((float(_logit(score[atom])) - logits.mean()) / spread, len(logits) - 1)
        return p_value


def _over(test: PresenceTest, seen: Sequence[TensorEvidence]) -> PresenceTest:
    """The same test over some of the tensors."""
    part = copy(test)
    part.seen = list(seen)
    return part


def apparent(products: Gram, tensors: Sequence[str]) -> Matrix:
    """(n,) the coefficient that each atom would have by itself in some tensors."""
    rows = [products.tensors.index(tensor) for tensor in tensors]
    square = np.einsum("mii->i", products.gram[rows])
    result: Matrix = np.divide(products.correlation[rows].sum(0), square, out=np.zeros_like(square), where=square > 0)
    return result


def _parts(seen: Sequence[TensorEvidence]) -> list[list[TensorEvidence]]:
    """The tensors of each layer, and of each kind, where these are not all of them."""
    parts = []
    for block_of in (layer_of, kind_of):
        blocks: dict[str, list[TensorEvidence]] = {}
        for item in seen:
            blocks.setdefault(block_of(item.tensor), []).append(item)
        parts += list(blocks.values()) if len(blocks) > 1 else []
    return parts


def _threshold(p_value: Matrix, q_value: Matrix, level: float) -> float:
    """The largest p-value that the false discovery rate lets pass; at least the level over the number of atoms."""
    return float(max(p_value[q_value <= level].max(initial=0.0), level / max(len(p_value), 1)))


def _jackknife(contained: Matrix, size: Matrix) -> Matrix:
    """(n,) the error of sum(contained) / sum(size) over tensors, leaving one out at a time; infinite where fewer than three tell."""
    told = (size > 0).sum(0)
    without = np.divide(contained.sum(0) - contained, size.sum(0) - size, out=np.zeros_like(size), where=size.sum(0) - size > 0)
    mean = np.where(size > 0, without, 0.0).sum(0) / np.maximum(told, 1)
    spread = (np.where(size > 0, without - mean, 0.0) ** 2).sum(0)
    return np.where(told > 2, np.sqrt((told - 1) / np.maximum(told, 1) * spread), np.inf)


def _weighing(coefficients: Matrix) -> Matrix:
    return np.maximum(np.abs(coefficients), FLOOR)


def _logit(values: Matrix | float) -> Matrix:
    clipped = np.clip(values, _CLIP, 1 - _CLIP)
    return np.asarray(np.log(clipped / (1 - clipped)))
