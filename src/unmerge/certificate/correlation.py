"""Presence of an atom from inner products alone: for atoms without a low rank, and for some of the weights.

A full fine-tune has no subspace to be contained in. What is left is correlation: of the target with the part of an atom that no
other atom explains. With C the cosines of atoms and target, P = C^-1,

    r_k = -P_kt / sqrt(P_kk P_tt)           partial correlation (Lauritzen 1996, Graphical Models, proposition 5.2)

Fine-tunes of one base are related, so r_k is not 0 for an absent atom when the target holds unknown ones:

    H0: the atom is not in the target; what is unknown there is as closely related to it as the dictionary's atoms are to each other.

How closely that is, the partial correlations r_kj among the atoms say, n (n - 1) / 2 of them: each atom plays the unknown one for
every other. Fisher's z = atanh |r| has mean mu_k and standard deviation sigma for one unknown component; for u of them, of which a
share s of the unexplained norm is (the rest is noise of dare, of trimming, of rounding), about

    mean  l mu_k,   l = sqrt(u s)           standard deviation  sqrt(s) sigma <= min(l, 1) sigma

and l is common to all atoms: the median of z_j / mu_j over the others, most of which are absent, drawn towards its largest value
as by one atom more. The p-value is a Student t tail with few degrees of freedom, since relations have heavier tails than the
normal. A prior, worth one pair, says that atoms are related at RELATED: in a small dictionary it decides.

It sees: an atom of any rank, at any scale, whatever the target's rounding, dare or ties, in any choice of weights; and of near
duplicates that lie below TWINS the one that is there. It cannot see: which of two twins; an atom that others put together (a merge
in the dictionary); atoms beside unknown or heavy noise where the dictionary is small, or where most of it is in the target. A
component that was trained on from an atom, or with it, holds part of it: the atom is named. One atom alone must be nearly all of
the target (cosine above .96).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.sparse.csgraph import connected_components

from unmerge.certificate.presence import LEVEL, Presence
from unmerge.vectors import Gram

Matrix = NDArray[np.float64]

#: atoms whose cosine is at least this are not regressed on each other
TWINS = 0.95
#: atoms whose partial correlation is at least this are variants: no example of how unknown components are related to atoms
VARIANTS = 0.5
#: how fine-tunes of a base are related, before any pair is seen: mean and standard deviation of z. It counts as one pair.
RELATED = 0.1
#: the largest l: nine unknown components and no noise
MOST = 3.0
#: degrees of freedom: for one atom, and at most
TAILS = (3, 10)
#: the noise of z is not believed to be smaller
NOISE = 0.01
#: share of the target's norm that is taken for noise, whatever is explained
FLOOR = 0.02
#: atoms are told from each other down to this share of their squared norm
_RIDGE = 1e-6
#: variance of the median of k normal values, times k
_MEDIAN = np.pi / 2


class CorrelationTest:
    """The test of n atoms against one target.

    Args:
        products: their inner products, over whichever weights.
        level: of the false discovery rate.
    """

    def __init__(self, products: Gram, level: float = LEVEL) -> None:
        self.level = level
        gram, correlation = products.gram.sum(0), products.correlation.sum(0)
        self._tensors = (np.einsum("mii->mi", products.gram) > 0).sum(0)
        self._relative = np.zeros(len(gram))
        self._answers: list[tuple[NDArray[np.intp], _Answer]] = []
        target, entries = float(np.sqrt(products.norm_squared.sum())), int(products.entries.sum())
        seen = np.flatnonzero(np.diag(gram) > 0) if target > 0 else np.zeros(0, dtype=np.intp)
        if len(seen):
            norms = np.sqrt(np.diag(gram)[seen])
            self._relative[seen] = target / norms
            cosines = gram[np.ix_(seen, seen)] / np.outer(norms, norms)
            toward = correlation[seen] / norms / target
            self._answers = [(seen[some], _answer(cosines[np.ix_(some, some)], toward[some], entries)) for some in _without_twins(cosines)]

    def presence(self) -> Presence:
        """Test every atom. The score is |r|; an atom that changes none of the weights that count has p = 1."""
        score, p_value = np.zeros(len(self._tensors)), np.ones(len(self._tensors))
        for atoms, answer in self._answers:
            score[atoms], p_value[atoms] = answer.score, answer.p_value()
        q_value = np.asarray(stats.false_discovery_control(p_value)) if len(p_value) else p_value
        error = np.full(len(score), np.inf)  # shares of inner products have no containment to fall short of
        return Presence(score=score, p_value=p_value, q_value=q_value, present=q_value <= self.level, tensors=self._tensors, error=error)

    def detection_limits(self) -> Matrix:
        """(n,) the smallest coefficient that would be named by itself, p at most level / n; NaN where none would do."""
        limits = np.full(len(self._tensors), np.nan)
        for atoms, answer in self._answers:
            limits[atoms] = answer.limits(self.level / len(limits)) * self._relative[atoms]
        return limits


@dataclass(frozen=True)
class _Answer:
    """For each of n atoms that can be told from each other; atoms and target of length 1.

    Attributes:
        score: (n,) |r|.
        mean, deviation: (n,) of z under H0.
        own: (n,) norm of what no other atom explains of each.
        unexplained: norm of what no atom explains of the target.
    """

    score: Matrix
    mean: Matrix
    deviation: Matrix
    own: Matrix
    unexplained: float

    @property
    def freedom(self) -> int:
        return min(TAILS[0] + len(self.score) - 1, TAILS[1])

    def p_value(self) -> Matrix:
        """(n,) of H0."""
        return np.asarray(stats.t.sf((np.arctanh(self.score) - self.mean) / self.deviation, self.freedom))

    def limits(self, p_value: float) -> Matrix:
        """(n,) the coefficient whose partial correlation has a p-value: r / sqrt(1 - r^2) = c own / unexplained."""
        z = self.mean + stats.t.isf(p_value, self.freedom) * self.deviation
        return np.asarray(np.sinh(z) * self.unexplained / self.own)


def _answer(cosines: Matrix, toward: Matrix, entries: int) -> _Answer:
    """Test atoms by their cosines (n, n), and those with the target (n,), over a number of weights."""
    n = len(cosines)
    whole = np.block([[cosines + _RIDGE * np.eye(n), toward[:, None]], [toward[None], np.full((1, 1), 1 + FLOOR**2)]])
    precision, among = np.linalg.inv(whole), np.linalg.inv(whole[:n, :n])
    score = _partial(precision)[:n, n]
    z, (mean, deviation) = np.arctanh(score), _relations(_partial(among))
    level, weight = np.zeros(n), 1 / n
    for atom in range(n):
        others = np.delete(z / mean, atom)
        usual = min(float(np.median(others)), MOST) if len(others) else 0.0
        level[atom] = (1 - weight) * usual + weight * MOST
    variance = (np.minimum(level, 1) * deviation) ** 2 * (1 + _MEDIAN * weight) + NOISE**2 + 1 / max(entries, 1)
    return _Answer(score, level * mean, np.sqrt(variance), 1 / np.sqrt(np.diag(among)), float(1 / np.sqrt(precision[n, n])))


def _partial(precision: Matrix) -> Matrix:
    """|partial correlations| between the variables of a precision matrix, each pair given all others."""
    scales = np.sqrt(np.diag(precision))
    return np.asarray(np.minimum(np.abs(precision / np.outer(scales, scales)), 1 - 1e-12))


def _relations(partial: Matrix) -> tuple[Matrix, float]:
    """How atoms are related to each other: (n,) means of z, shrunk towards that over all pairs, and its standard deviation."""
    counted = np.triu(partial < VARIANTS, 1)
    z = np.arctanh(np.where(counted | counted.T, partial, 0.0))
    overall = (RELATED + z.sum() / 2) / (1 + counted.sum())
    mean = (overall + z.sum(1)) / (1 + (counted | counted.T).sum(1))
    spread = np.where(counted, z - (mean[:, None] + mean) / 2, 0.0)
    return mean, float(np.sqrt((RELATED**2 + np.square(spread).sum()) / (1 + counted.sum())))


def _without_twins(cosines: Matrix) -> list[NDArray[np.intp]]:
    """Dictionaries without twins, as few as hold every atom: the first of every group of twins, the second where there is one, ..."""
    _, labels = connected_components(np.abs(cosines) >= TWINS, directed=False)
    groups = [np.flatnonzero(labels == label) for label in range(labels.max() + 1)]
    return [np.array([group[min(place, len(group) - 1)] for group in groups]) for place in range(max(map(len, groups)))]
