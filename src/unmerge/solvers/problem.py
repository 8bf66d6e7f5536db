"""A least-squares problem in Gram form, and what a solver answers.

    minimise over c in R^n    1/2 ||t - V c||^2  =  1/2 c^T G c - b^T c + 1/2 ||t||^2

G = V^T V (n x n), b = V^T t: the size of the dictionary, whatever the number of weights.

Units must not matter: an atom twice as long has half the coefficient, and nothing else changes. Solvers therefore work on
*shares*, x_i = c_i ||v_i|| / ||t||, the signed length of an atom's contribution in units of the target: the same problem with
atoms and target of length 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

#: the least contribution worth naming, ||c_i v_i|| in units of ||t||. One number for all: an atom that contributes less is not named
#: by any method; as an l1 penalty it keeps out an atom whose product with the residual is less; and its square is the gain in squared
#: error that a lone atom of that size brings. It looks at no answer, and at no noise
NAMED_SHARE = 0.1
GAIN = 0.01


@dataclass(frozen=True)
class Blocks:
    """The same sums over the blocks of a partition of the weights, such as layers. Summed over blocks they are the problem's.

    Attributes:
        names: of the blocks, m of them.
        gram: (m, n, n), V_b^T V_b.
        correlation: (m, n), V_b^T t_b.
        norm_squared: (m,), ||t_b||^2.
    """

    names: tuple[str, ...]
    gram: NDArray[np.float64]
    correlation: NDArray[np.float64]
    norm_squared: NDArray[np.float64]

    @cached_property
    def norms(self) -> Matrix:
        """(m, n) norms of each atom's part in each block."""
        return np.asarray(np.sqrt(np.maximum(np.einsum("bii->bi", self.gram), 0.0)))

    @cached_property
    def weights(self) -> Matrix:
        """(m, n) the share of each atom's squared norm that lies in each block; they add up to 1, or to 0 for an atom of zero."""
        total = (self.norms**2).sum(0)
        return np.asarray(np.divide(self.norms**2, total, out=np.zeros_like(self.norms), where=total > 0))

    def combined(self, by_block: Matrix) -> Vector:
        """(n,) one coefficient for each atom from (m, n), one for each block.

        c_i = sum_b c_bi ||v_bi||^2 / ||v_i||^2: the coefficient of the projection of sum_b c_bi v_bi on v_i.
        """
        return np.asarray((by_block * self.weights).sum(0))


@dataclass(frozen=True)
class Problem:
    """A least-squares problem over n atoms.

    Attributes:
        gram: (n, n), V^T V.
        correlation: (n,), V^T t.
        norm_squared: ||t||^2.
        partitions: the same sums block by block, by the name of the partition; for methods that ask for one.
    """

    gram: Matrix
    correlation: Vector
    norm_squared: float
    partitions: Mapping[str, Blocks] = field(default_factory=dict)

    @staticmethod
    def of(atoms: Matrix, target: Vector) -> Problem:
        """From expanded vectors: atoms (weights, n), target (weights,)."""
        return Problem(atoms.T @ atoms, atoms.T @ target, float(target @ target))

    @property
    def size(self) -> int:
        return len(self.correlation)

    @property
    def norms(self) -> Vector:
        """(n,) norms of the atoms."""
        return np.sqrt(np.maximum(np.diag(self.gram), 0.0))

    def residual_squared(self, coefficients: Vector) -> float:
        """||t - V c||^2, at least 0."""
        explained = 2 * self.correlation @ coefficients - coefficients @ self.gram @ coefficients
        return max(float(self.norm_squared - explained), 0.0)

    @property
    def scales(self) -> Vector:
        """(n,) the atoms' norms, 1 for an atom that changes nothing: what to divide by."""
        return np.where(self.norms > 0, self.norms, 1.0)

    @property
    def target_scale(self) -> float:
        """||t||, 1 for a zero target: what to divide by."""
        return float(np.sqrt(self.norm_squared)) if self.norm_squared > 0 else 1.0

    @cached_property
    def cosines(self) -> Matrix:
        """(n, n) between the atoms; 0 for an atom that changes nothing, also with itself."""
        return np.asarray(self.gram / np.outer(self.scales, self.scales))

    @cached_property
    def target_cosines(self) -> Vector:
        """(n,) of each atom with the target."""
        return np.asarray(self.correlation / (self.scales * self.target_scale))

    def share_gradient(self, shares: Vector) -> Vector:
        """(n,) gradient of 1/2 ||t - V c||^2 / ||t||^2 in the shares: minus the product of each unit atom with the residual, over ||t||."""
        return np.asarray(self.cosines @ shares - self.target_cosines)

    def share_error(self, shares: Vector) -> float:
        """||t - V c||^2 / ||t||^2; 0 for a zero target with nothing in it."""
        explained = 2 * self.target_cosines @ shares - shares @ self.cosines @ shares
        return max(float((self.norm_squared > 0) - explained), 0.0)

    def shares(self, coefficients: Vector) -> Vector:
        """(n,) c_i ||v_i|| / ||t||."""
        return np.asarray(coefficients * self.norms / self.target_scale)

    def coefficients(self, shares: Vector) -> Vector:
        """(n,) c from its shares."""
        return np.asarray(shares * self.target_scale / self.scales)

    def answer(self, shares: Vector, *, violation: float | None, steps: int, stopped: str, by_block: Matrix | None = None) -> Solution:
        """A solution from its shares (n,). Named, whatever the method: what contributes at least NAMED_SHARE; a merge adds."""
        coefficients = self.coefficients(shares)
        return Solution(
            coefficients=coefficients,
            named=np.asarray(shares >= NAMED_SHARE),
            residual_squared=self.residual_squared(coefficients),
            violation=violation,
            steps=steps,
            stopped=stopped,
            by_block=by_block,
        )

    def only(self, atoms: Sequence[int]) -> Problem:
        """The problem with some of the atoms, over all weights."""
        return Problem(self.gram[np.ix_(atoms, atoms)], self.correlation[list(atoms)], self.norm_squared)

    def blocks(self, partition: str) -> Blocks:
        """The sums by a partition; without it, all weights as one block."""
        if partition in self.partitions:
            return self.partitions[partition]
        return Blocks(("all weights",), self.gram[None], self.correlation[None], np.array([self.norm_squared]))

    def condition(self) -> float:
        """Condition number of the atoms' cosines, infinite where atoms coincide; atoms that change nothing are left out."""
        present = self.norms > 0
        if not present.any():
            return 1.0
        values = np.linalg.eigvalsh(self.cosines[np.ix_(present, present)])
        return float(values[-1] / values[0]) if values[0] > 1e-14 * values[-1] else float("inf")


@dataclass(frozen=True)
class Solution:
    """What a solver found, and how far to trust it.

    Attributes:
        coefficients: (n,).
        named: (n,) whether the method names the atom as a component: c_i ||v_i|| >= NAMED_SHARE ||t||.
        residual_squared: ||t - V c||^2.
        violation: the largest violation of the method's optimality conditions, in units of ||t|| (see ``optimality``); None
            for a method that has none.
        steps: iterations, or atoms added.
        stopped: why it stopped, a sentence.
        by_block: (m, n), the coefficients in each block, for a method that gives an atom several.
    """

    coefficients: Vector
    named: NDArray[np.bool_]
    residual_squared: float
    violation: float | None
    steps: int
    stopped: str
    by_block: Matrix | None = None


Solver = Callable[[Problem], Solution]
