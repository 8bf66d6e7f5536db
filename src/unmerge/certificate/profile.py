"""Whether an atom acted with one coefficient in all tensors, and with which ones where it did not.

Layer gradients and filters are everyday settings of a merge (mergekit: a list of weights, ``filter: mlp``), so an atom may act with a
coefficient that depends on the layer, on the kind of module, or on both, and in some tensors not at all. One number is then wrong
everywhere. Each tensor's own answer is held against the noise and against its neighbours (analysis of variance; Scheffé 1959).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from unmerge.certificate.systems import CONFIDENCE
from unmerge.vectors import kind_of, layer_of

Matrix = NDArray[np.float64]

#: a coefficient varies when tensors differ by more than this share of it (root mean square). Below, one number with its interval says it
VARIES = 0.05
#: level at which differences must exceed the noise, and at which layers or kinds must differ by more than their own tensors do
LEVEL = 1e-4


@dataclass(frozen=True)
class Group:
    """Tensors in which an atom acts with one coefficient.

    Attributes:
        layer, kind: what its tensors have in common (``vectors.layer_of``, ``vectors.kind_of``); empty for all.
        tensors: their names.
        coefficient: there.
        interval: of it.
    """

    layer: str
    kind: str
    tensors: tuple[str, ...]
    coefficient: float
    interval: tuple[float, float]


def varies(own: Matrix, precision: Matrix, tensors: Sequence[str], noisy: bool) -> bool:
    """Whether one atom's coefficient differs between layers or kinds of modules.

    Args:
        own: (m,) each tensor's own answer; NaN where it has none.
        precision: (m,) one over its variance under the noise; without noise any weights.
        tensors: (m,) their names.
        noisy: whether there is noise.
    """
    told = np.isfinite(own) & (precision > 0)
    values, weights = own[told], precision[told]
    if len(values) < 2:
        return False
    names = [tensor for tensor, use in zip(tensors, told, strict=True) if use]
    scatter = _within(values, weights, ["all"] * len(values))
    size = float((weights * values**2).sum())
    excess = scatter - (len(values) - 1) * noisy
    if size <= 0 or excess <= VARIES**2 * size:
        return False
    if not noisy:
        return True
    if scatter < stats.chi2.isf(LEVEL, len(values) - 1):
        return False
    return any(_differ(values, weights, [of(name) for name in names]) for of in (kind_of, layer_of))


def _within(values: Matrix, weights: Matrix, labels: Sequence[str]) -> float:
    """The weighted sum of squares around each group's mean."""
    total, array = 0.0, np.array(labels)
    for label in dict.fromkeys(labels):
        own = array == label
        mean = np.average(values[own], weights=weights[own])
        total += float((weights[own] * (values[own] - mean) ** 2).sum())
    return total


def _differ(values: Matrix, weights: Matrix, labels: Sequence[str]) -> bool:
    """Whether groups differ by more than their members do (F test)."""
    groups, count = len(set(labels)), len(values)
    if groups < 2:
        return False
    if groups == count:  # each is alone: the noise is all there is to hold them against
        return True
    inside = _within(values, weights, labels)
    between = _within(values, weights, ["all"] * count) - inside
    spread = max(inside / (count - groups), 1.0)
    return bool(stats.f.sf(between / (groups - 1) / spread, groups - 1, count - groups) < LEVEL)


def profile(own: Matrix, precision: Matrix, tensors: Sequence[str], noisy: bool, leak: float, figures: float) -> tuple[Group, ...]:
    """The coefficients of an atom that varies: by kind of module, by layer, or where neither explains them by both.

    Args:
        own: (m,) each tensor's own answer; NaN where it has none.
        precision: (m,) one over its variance under the noise; without noise any weights.
        tensors: (m,) their names.
        noisy: whether there is noise.
        leak: share of a coefficient that something unknown may move it by.
        figures: relative error of a coefficient that nothing else moves.
    """
    told = np.flatnonzero(np.isfinite(own) & (precision > 0))
    names = [tensors[row] for row in told.tolist()]
    size = float((precision[told] * own[told] ** 2).sum())
    chosen: list[tuple[str, str]] = []
    for of in (_of_kind, _of_layer, _of_both):
        chosen = [of(name) for name in names]
        inside = _within(own[told], precision[told], [str(label) for label in chosen])
        if inside - (len(told) - len(set(chosen))) * noisy <= (VARIES / 2) ** 2 * size:
            break
    labels = list(dict.fromkeys(chosen))
    inside, freedom = _within(own[told], precision[told], [str(label) for label in chosen]), len(told) - len(labels)
    spread = max(inside / freedom if freedom else 0.0, float(noisy))
    reach = float(stats.t.isf((1 - CONFIDENCE) / 2, freedom if freedom and not noisy else max(freedom, 30)))
    groups = []
    for label in labels:
        rows = told[[other == label for other in chosen]]
        coefficient = float(np.average(own[rows], weights=precision[rows]))
        error = reach * float(np.sqrt(spread / precision[rows].sum())) + (leak + figures) * abs(coefficient)
        groups.append(Group(*label, tuple(tensors[row] for row in rows.tolist()), coefficient, (coefficient - error, coefficient + error)))
    return tuple(groups)


def _of_kind(tensor: str) -> tuple[str, str]:
    return "", kind_of(tensor)


def _of_layer(tensor: str) -> tuple[str, str]:
    return layer_of(tensor), ""


def _of_both(tensor: str) -> tuple[str, str]:
    return layer_of(tensor), kind_of(tensor)
