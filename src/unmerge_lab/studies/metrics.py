"""What is measured of one decomposition. Conventions for the corners are stated where they apply.

Named components are compared with the truth: the components of the target that are in the dictionary. A component that comes with
a group of atoms that it cannot be told from is right when one of them is in the truth, and finds that one.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

#: a component's name with the atoms that it cannot be told from
Candidates = frozenset[str]


def precision(named: Sequence[Candidates], truth: Collection[str]) -> float:
    """The share of named components that are right.

    Naming nothing is 1 where there is nothing to name, else 0.
    """
    if not named:
        return float(not truth)
    return sum(bool(candidates & set(truth)) for candidates in named) / len(named)


def recall(named: Iterable[Candidates], truth: Collection[str]) -> float | None:
    """The share of the truth that is found; None where there is nothing to find."""
    if not truth:
        return None
    found = frozenset[str]().union(*named)
    return len(found & set(truth)) / len(truth)


def perfect(named: Sequence[Candidates], truth: Collection[str]) -> bool:
    """Whether all that is named is right, and all is found."""
    return precision(named, truth) == 1 and recall(named, truth) in (1, None)


def effective_number(contributions: NDArray[np.float64]) -> float:
    """exp of the entropy of p_i = |x_i| / sum |x|: 1 for a single contribution, n for n equal ones, 0 for none.

    Args:
        contributions: (n,) c_i ||v_i||, so that it does not depend on how long an atom is.
    """
    sizes = np.abs(contributions)
    if not sizes.any():
        return 0.0
    shares = sizes[sizes > 0] / sizes.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


def coefficient_error(found: Mapping[str, float], acted: Mapping[str, float] | None) -> float | None:
    """The largest |c - w| / |w| over the known components; an atom without a coefficient has 0.

    None where no single coefficient acted, or nothing known is in the target.
    """
    if not acted:
        return None
    return max(abs(found.get(name, 0.0) - weight) / abs(weight) for name, weight in acted.items())


def reconstruction_error(residual_squared: float, norm_squared: float) -> float:
    """||t - t_hat|| / ||t||."""
    return math.sqrt(residual_squared / norm_squared)


def one_minus_cosine_squared(fitted_squared: float, product: float, norm_squared: float) -> float:
    """1 - cos^2 of the angle between t and t_hat, from ||t_hat||^2, <t, t_hat> and ||t||^2; 1 where t_hat is zero."""
    if fitted_squared <= 0:
        return 1.0
    return max(1 - product**2 / (fitted_squared * norm_squared), 0.0)
