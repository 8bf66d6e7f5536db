"""Atoms of a dictionary that are about to be measured in a target, with what is known of both."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from unmerge.certificate.duplicates import ALIKE, cosines_of
from unmerge.certificate.evidence import TensorEvidence
from unmerge.certificate.refined import Looked
from unmerge.certificate.rounding import Sample
from unmerge.certificate.systems import solve
from unmerge.vectors import Gram, TaskVector

Matrix = NDArray[np.float64]
Watch = Callable[[Iterable[str]], Iterable[str]]

#: weights of the tensors that are looked at before they were rounded, evenly spread; of large models that is a part
_LOOKED = 200_000_000
#: strangers in whose subspaces what is left is looked at
_OTHERS = 4


@dataclass(frozen=True)
class Candidates:
    """k atoms and a target.

    Attributes:
        atoms: the dictionary.
        target: the target.
        products: inner products of all atoms and the target, over all weights.
        seen: what the m tensors that are not blind say.
        chosen: the places of the k atoms.
        without_rank: (n,) which atoms of the dictionary have no low rank.
        sample: weights of the target with what the k atoms would have changed in them; None where nothing was rounded.
        watch: wraps loops over tensors, for a progress bar.
    """

    atoms: Sequence[TaskVector]
    target: TaskVector
    products: Gram
    seen: Sequence[TensorEvidence]
    chosen: Sequence[int]
    without_rank: NDArray[np.bool_]
    sample: Sample | None
    watch: Watch = iter

    @cached_property
    def known(self) -> list[TaskVector]:
        """The k atoms."""
        return [self.atoms[atom] for atom in self.chosen]

    @cached_property
    def dense(self) -> NDArray[np.bool_]:
        """(k,) which of them have no low rank."""
        return self.without_rank[list(self.chosen)]

    @cached_property
    def names(self) -> tuple[str, ...]:
        """(m,) the tensors that are not blind."""
        return tuple(item.tensor for item in self.seen)

    @cached_property
    def rows(self) -> list[int]:
        """(m,) their places among the products' tensors."""
        return [self.products.tensors.index(name) for name in self.names]

    @cached_property
    def noisy(self) -> bool:
        """Whether any of them has noise."""
        return any(item.noise for item in self.seen)

    @cached_property
    def systems(self) -> tuple[Matrix, Matrix]:
        """(tensors, k, k) and (tensors, k) normal equations of all tensors, nothing projected off."""
        return self.products.gram[:, self.chosen][:, :, self.chosen], self.products.correlation[:, self.chosen]

    @cached_property
    def squares(self) -> Matrix:
        """(k,) least squares over all tensors."""
        return solve(self.systems[0].sum(0), self.systems[1].sum(0))

    @cached_property
    def lengths(self) -> Matrix:
        """(k,) the atoms' norms."""
        return np.asarray(np.sqrt(np.einsum("mii->i", self.systems[0])))

    @cached_property
    def strangers(self) -> list[int]:
        """Atoms of the dictionary that are unlike the k atoms and have a low rank, those first that change most of the m tensors."""
        cosines = np.abs(cosines_of(self.products.gram[self.rows].sum(0)))
        changed = np.array([sum(bool((item.owner == atom).any()) for item in self.seen) for atom in range(len(self.atoms))])
        unlike = (changed > 0) & (cosines[:, self.chosen].max(1, initial=0.0) < ALIKE)
        return sorted(np.flatnonzero(unlike).tolist(), key=lambda atom: -int(changed[atom]))

    @cached_property
    def others(self) -> list[TaskVector]:
        """A few of the strangers, in whose subspaces what is left is looked at as well."""
        return [self.atoms[atom] for atom in self.strangers[:_OTHERS]]

    def grams(self, tensors: Sequence[str]) -> Matrix:
        """(tensors, k, k) inner products of the atoms in some tensors."""
        return self.systems[0][[self.products.tensors.index(tensor) for tensor in tensors]]

    def looked(self, coefficients: Matrix) -> list[Looked]:
        """What ``refined`` needs to know of each tensor, where the atoms have some (m, k) coefficients."""
        squares = dict(zip(self.products.tensors, self.products.norm_squared.tolist(), strict=True))
        return [
            Looked(item.tensor, item.noise, item.rank_left(self.chosen, row), len(item.signal_values), item.least, squares[item.tensor])
            for item, row in zip(self.seen, coefficients, strict=True)
        ]

    def some(self, looked: Sequence[Looked]) -> list[Looked]:
        """As many of the m tensors as may be looked at once more, evenly spread."""
        every = -(-sum(math.prod(item.shape) for item in self.seen) // _LOOKED)
        return list(looked[:: max(every, 1)])

    def share_left(self, coefficients: Matrix) -> float:
        """||t - sum c V||^2 / ||t||^2 for (m, k) coefficients in the m tensors, over these tensors; 0 where the target is 0 there."""
        gram, correlation, square = self.systems[0][self.rows], self.systems[1][self.rows], self.products.norm_squared[self.rows]
        left = square - 2 * np.einsum("mk,mk->m", coefficients, correlation) + np.einsum("mi,mij,mj->m", coefficients, gram, coefficients)
        return float(left.sum() / square.sum()) if square.sum() else 0.0
