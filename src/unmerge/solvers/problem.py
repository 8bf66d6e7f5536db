"""A least-squares problem in Gram form, and what a solver answers.

    minimise over c in R^n    1/2 ||t - V c||^2  =  1/2 c^T G c - b^T c + 1/2 ||t||^2

G = V^T V (n x n), b = V^T t: the size of the dictionary, whatever the number of weights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Problem:
    """A least-squares problem over n atoms.

    Attributes:
        gram: (n, n), V^T V.
        correlation: (n,), V^T t.
        norm_squared: ||t||^2.
    """

    gram: Matrix
    correlation: Vector
    norm_squared: float

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

    def gradient(self, coefficients: Vector) -> Vector:
        """(n,) G c - b."""
        return self.gram @ coefficients - self.correlation

    @property
    def scales(self) -> Vector:
        """(n,) the atoms' norms, 1 for an atom that changes nothing: what to divide by."""
        return np.where(self.norms > 0, self.norms, 1.0)

    @property
    def target_scale(self) -> float:
        """||t||, 1 for a zero target: what to divide by."""
        return float(np.sqrt(self.norm_squared)) if self.norm_squared > 0 else 1.0

    def condition(self) -> float:
        """Condition number of the atoms' cosines, infinite where atoms coincide; atoms that change nothing are left out."""
        present = self.norms > 0
        if not present.any():
            return 1.0
        cosines = (self.gram / np.outer(self.scales, self.scales))[np.ix_(present, present)]
        values = np.linalg.eigvalsh(cosines)
        return float(values[-1] / values[0]) if values[0] > 1e-14 * values[-1] else float("inf")


@dataclass(frozen=True)
class Solution:
    """What a solver found, and how far to trust it.

    Attributes:
        coefficients: (n,).
        named: (n,) whether the method names the atom as a component, by the method's own stated rule.
        residual_squared: ||t - V c||^2.
        violation: the largest violation of the method's optimality conditions, in units of the atoms' norms times ||t||
            (a cosine); None for a method that has none.
        steps: iterations, or atoms added.
        stopped: why it stopped, a sentence.
    """

    coefficients: Vector
    named: NDArray[np.bool_]
    residual_squared: float
    violation: float | None
    steps: int
    stopped: str


Solver = Callable[[Problem], Solution]

#: a component's contribution ||c_i v_i|| must be at least this share of ||t|| to be named by a method that has no zeros
#: of its own
NAMED_SHARE = 0.1


def named_by_share(problem: Problem, coefficients: Vector) -> NDArray[np.bool_]:
    """The stated rule for dense methods: c_i > 0 and ||c_i v_i|| >= NAMED_SHARE ||t||. It looks at no answer."""
    share = coefficients * problem.norms / problem.target_scale
    return np.asarray(share >= NAMED_SHARE)
