"""Atoms too alike to be tested one against the other: which they are, and which of them a target holds.

A variant of a present atom (another seed of the same task, a continued training) shares its leading directions, so it looks
present as well. What tells them apart is where they differ: all candidates are fitted together,

    minimise ||t - sum x_i v_i / ||v_i|| ||^2          x_i = c_i ||v_i||, contributions: units do not matter

and the spread of the answer is taken over tensors (delete-one jackknife; Efron and Stein 1981). Between two members

    d = (|x_a| - |x_b|) / (|x_a| + |x_b|)

must be at least CLEAR and x_a - x_b must leave its margin; otherwise the two are a group. Assumes that what else is in the
target lies along the members' difference by chance (in tensors, with changing sign), or no further than ``leak``.

Trimming (ties) is no linear map: of T = f(v_b), v_b = v_a + e, a part of x_b falls on v_a. Measured on low-rank and on normal
entries at densities .1 to .5, up to .2 of x_b where the cosine is at most .8, and up to .45 at .99. CLEAR is above that; and
two members are said to be both in the target only where their cosine is at most DISTINCT.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.sparse.csgraph import connected_components

from unmerge.certificate.systems import solve
from unmerge.vectors import Gram

Matrix = NDArray[np.float64]

#: atoms whose cosine is at least this are of one family. Unrelated adapters to one base stay below .2; at .4 the variance of a
#: coefficient is 1 / (1 - .4^2) = 1.2 times what it is for the atom alone, so below it nothing is gained by asking which
ALIKE = 0.4
#: the least contrast by which one member is preferred: the other contributes at most .54 as much
CLEAR = 0.3
#: two members are both in the target only where their cosine is at most this, and the smaller contributes at least OWN of the larger
DISTINCT, OWN = 0.8, 0.3
#: how many standard errors a difference must exceed; by Student's t where few tensors tell
SIGMAS = 3.0
#: eigenvalues of the cosines below this share of the largest are zero: what lies there cannot be told
_SINGULAR = 1e-10


@dataclass(frozen=True)
class Settled:
    """One component that a family holds.

    Attributes:
        best: the member that contributes most.
        group: all members that it may be as well, ``best`` among them; empty where it is told from every other.
    """

    best: int
    group: tuple[int, ...] = ()


def families(gram: Matrix) -> list[list[int]]:
    """Atoms that belong together: connected by |cosine| >= ALIKE.

    Args:
        gram: (n, n) inner products over all tensors.

    Returns:
        Every atom in exactly one family, members ascending, families by their first member. An atom and its negative are alike:
        they span the same directions.
    """
    if not len(gram):
        return []
    _, labels = connected_components(np.abs(cosines_of(gram)) >= ALIKE, directed=False)
    found: dict[int, list[int]] = {}
    for atom, label in enumerate(labels.tolist()):
        found.setdefault(label, []).append(atom)
    return list(found.values())


def usual_cosine(gram: Matrix, dense: NDArray[np.bool_] | None = None) -> Matrix:
    """(n,) the mean |cosine| between each atom's kind: those with a low rank, and those without, which share more.

    Atoms of one family are left out. Where a kind has no two families, all pairs of different families are taken; 0 where there are none.

    Args:
        gram: (n, n) inner products over all tensors.
        dense: (n,) which atoms have no low rank; none where not given.
    """
    count = len(gram)
    dense = np.zeros(count, dtype=bool) if dense is None else dense
    cosines = np.abs(cosines_of(gram))
    apart = np.ones_like(cosines, dtype=bool)
    for family in families(gram):
        apart[np.ix_(family, family)] = False
    usual = np.zeros(count)
    for kind in (dense, ~dense):
        among = apart & np.outer(kind, kind)
        pairs = among if among.any() else apart
        usual[kind] = cosines[pairs].mean() if pairs.any() else 0.0
    return usual


def leak(products: Gram, chosen: Sequence[int], dense: NDArray[np.bool_] | None = None) -> Matrix:
    """(k,) how far unknown components may lie along some atoms: the norm of what these leave times the usual cosine of their kind.

    Args:
        products: of all atoms and the target.
        chosen: the k atoms.
        dense: (n,) as for ``usual_cosine``.
    """
    gram, correlation, square = products.gram.sum(0), products.correlation.sum(0)[list(chosen)], float(products.norm_squared.sum())
    explained = float(solve(gram[np.ix_(chosen, chosen)], correlation) @ correlation)
    return np.asarray(math.sqrt(max(square - explained, 0.0)) * usual_cosine(gram, dense)[list(chosen)])


def settle(members: Sequence[int], gram: Matrix, correlation: Matrix, leak: float = 0.0) -> list[Settled]:
    """Which members of one family a target holds, given that it holds at least one.

    Args:
        members: candidates that are of the family; the others are components known to be in the target.
        gram: (m, k, k) inner products of the candidates, tensor by tensor.
        correlation: (m, k) of the candidates with the target.
        leak: how far unknown components may lie along one further direction, in the units of the target: the norm of what is
            unexplained times ``usual_cosine``. With 0, and directions that all adapters share, a wrong member can win.

    Returns:
        At least one component, the largest first. Several only where each is clearly there by itself.
    """
    fit = _Fit.of(gram, correlation, leak)
    left = sorted(members, key=lambda member: -fit.shares[member])
    settled: list[Settled] = []
    while left and (not settled or all(fit.both(one.best, left[0]) for one in settled)):
        best = left[0]
        unsure = [other for other in left[1:] if not (fit.told_apart(best, other) or fit.both(best, other))]
        settled.append(Settled(best, tuple(sorted([best, *unsure])) if unsure else ()))
        left = [other for other in left[1:] if other not in unsure]
    return settled


@dataclass(frozen=True)
class _Fit:
    """Contributions of k candidates and how far to trust them.

    Attributes:
        shares: (k,) x_i, what each contributes in units of the target.
        cosines: (k, k).
        inverse: (k, k) pseudoinverse of the cosines.
        covariance: (k, k) of the shares, by the jackknife.
        by_tensor: (m, k, k) each tensor's part in the cosines.
        leak: see ``settle``.
    """

    shares: Matrix
    cosines: Matrix
    inverse: Matrix
    covariance: Matrix
    by_tensor: Matrix
    leak: float

    @staticmethod
    def of(gram: Matrix, correlation: Matrix, leak: float) -> _Fit:
        scales = _scales(gram.sum(0))
        by_tensor, toward = gram / np.outer(scales, scales), correlation / scales
        cosines, inner = by_tensor.sum(0), toward.sum(0)
        inverse = _pseudoinverse(cosines)
        count = len(gram)
        without = np.array([_pseudoinverse(cosines - by_tensor[row]) @ (inner - toward[row]) for row in range(count)])
        spread = without - without.mean(0)
        return _Fit(inverse @ inner, cosines, inverse, (count - 1) / count * spread.T @ spread, by_tensor, leak)

    def told_apart(self, best: int, other: int) -> bool:
        """Whether the target holds ``best`` rather than ``other``."""
        large, small = self.shares[best], abs(self.shares[other])
        return bool(large - small >= CLEAR * (large + small)) and self._exceeds(best, other)

    def both(self, best: int, other: int) -> bool:
        """Whether the target holds both."""
        distinct = abs(self.cosines[best, other]) <= DISTINCT
        return bool(distinct and self.shares[other] >= OWN * self.shares[best]) and self._exceeds(best) and self._exceeds(other)

    def _exceeds(self, one: int, other: int | None = None) -> bool:
        """Whether x_one, or x_one - x_other, is above 0 by more than chance and leaks allow."""
        contrast = np.zeros(len(self.shares))
        contrast[one] = 1.0
        if other is not None:
            contrast[other] = -1.0
        # dual vector: x_one - x_other is the target's inner product with it; of length sqrt(contrast^T C^+ contrast)
        dual = self.inverse @ contrast
        told = np.einsum("i,mij,j->m", dual, self.by_tensor, dual)
        tensors = float(told.sum() ** 2 / np.square(told).sum()) if told.any() else 0.0
        if tensors <= 1 + 1e-9:  # a single tensor has no spread
            return False
        error = math.sqrt(max(float(contrast @ self.covariance @ contrast), 0.0))
        margin = float(stats.t.isf(stats.norm.sf(SIGMAS), tensors - 1)) * error
        return bool(contrast @ self.shares > margin + self.leak * math.sqrt(max(float(contrast @ dual), 0.0)))


def _scales(gram: Matrix) -> Matrix:
    norms = np.sqrt(np.maximum(np.diag(gram), 0.0))
    return np.where(norms > 0, norms, 1.0)


def cosines_of(gram: Matrix) -> Matrix:
    """(n, n) cosines from inner products; those of an atom that is 0 are 0."""
    scales = _scales(gram)
    return gram / np.outer(scales, scales)


def _pseudoinverse(cosines: Matrix) -> Matrix:
    """Of a symmetric matrix that may be singular: coinciding atoms then get equal shares."""
    values, vectors = np.linalg.eigh(cosines)
    keep = values > _SINGULAR * max(values[-1], 0.0)
    return np.asarray((vectors[:, keep] / values[keep]) @ vectors[:, keep].T)
