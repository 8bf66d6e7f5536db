"""Optimality conditions of f(x) + p(x), f smooth and p a penalty or a constraint, as one number.

    x is optimal  <=>  x = prox_p(x - grad f(x))          (Parikh and Boyd, Proximal Algorithms, 2014, section 2.3)

For a convex p these are the Karush-Kuhn-Tucker conditions. The atoms have length 1, so the distance between the two sides is
how far one step of unit length still moves a contribution, in units of ||t||. It is computed from the answer alone, never
from the solver's own state.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from unmerge.solvers.problem import Vector

Proximal = Callable[[NDArray[np.float64]], NDArray[np.float64]]

#: a violation up to this is rounding
ROUNDING = 1e-7


def violation(shares: NDArray[np.float64], gradient: NDArray[np.float64], proximal: Proximal) -> float:
    """max |x - prox(x - gradient)|; 0 where x is optimal."""
    return float(np.abs(shares - proximal(shares - gradient)).max(initial=0.0))


def verdict(found: float) -> str:
    """Why a solver of a convex problem stopped, from the violation that its answer has."""
    if found <= ROUNDING:
        return "the Karush-Kuhn-Tucker conditions hold"
    return f"the Karush-Kuhn-Tucker conditions are violated by {found:.1e}, more than rounding; look for atoms that nearly coincide"


def free(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """prox of no penalty."""
    return x


def shrunk(x: NDArray[np.float64], penalty: float | NDArray[np.float64]) -> NDArray[np.float64]:
    """prox of penalty ||x||_1: soft thresholding; a penalty for each column may be given."""
    return np.asarray(np.sign(x) * np.maximum(np.abs(x) - penalty, 0.0))


def nonnegative(x: NDArray[np.float64], penalty: float = 0.0) -> NDArray[np.float64]:
    """prox of penalty ||x||_1 subject to x >= 0."""
    return np.asarray(np.maximum(x - penalty, 0.0))


def group_shrunk(x: NDArray[np.float64], penalty: float) -> NDArray[np.float64]:
    """prox of penalty sum_i ||x_.i||_2, the columns of (m, n) being groups: every column is shortened, short ones to zero."""
    lengths = np.sqrt((x**2).sum(0))
    return np.asarray(x * np.divide(np.maximum(lengths - penalty, 0.0), lengths, out=np.zeros_like(lengths), where=lengths > 0))


def lambda_max(target_cosines: Vector) -> float:
    """The smallest l1 penalty at which no atom enters: the largest |product| of a unit atom with the target."""
    return float(np.abs(target_cosines).max(initial=0.0))
