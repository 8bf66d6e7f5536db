"""Least squares to intervals: coefficients whose sum of regressors lies in as many intervals, and as close to the others, as possible.

A weight on a grid was somewhere in its cell before it was rounded. The sum of squared distances of sum_i c_i V_i to the cells is convex
and piecewise quadratic in c: a few Newton steps on the weights outside their cells minimise it. Least squares on the weights
themselves shrinks instead, where changes are of about a step of the grid.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unmerge.certificate.systems import jackknife_interval, solve

Matrix = NDArray[np.float64]

#: Newton steps, halvings of a step that does not descend, and the gain below which the answer is still
_STEPS, _HALVINGS, _STILL = 60, 30, 1e-12


@dataclass(frozen=True)
class Intervals:
    """Intervals that sums of k regressors lie in.

    Attributes:
        regressors: (k, w).
        low, high: (w,) the ends.
        owner: (w,) the tensor that each weight is in, by place.
        tensors: how many there are.
    """

    regressors: Tensor
    low: Tensor
    high: Tensor
    owner: Tensor
    tensors: int

    def outside(self, coefficients: Matrix) -> Tensor:
        """(w,) how far the sum lies above (positive) or below (negative) each interval; 0 inside."""
        total = torch.from_numpy(coefficients) @ self.regressors
        return (total - self.high).clamp_min(0) + (total - self.low).clamp_max(0)

    def fit(self, coefficients: Matrix) -> Matrix:
        """(k,) the coefficients with the least sum of squared distances to the intervals, from a first guess."""
        outside = self.outside(coefficients)
        loss = float(outside.square().sum())
        for _ in range(_STEPS):
            wrong = outside.nonzero()[:, 0]
            if not len(wrong):
                break
            active = self.regressors[:, wrong]
            step = solve((active @ active.T).numpy(), (active @ outside[wrong]).numpy())
            new, shrink = loss, 1.0
            for _ in range(_HALVINGS):
                outside = self.outside(coefficients - shrink * step)
                new = float(outside.square().sum())
                if new <= loss:
                    break
                shrink /= 2
            coefficients = coefficients - shrink * step
            if loss - new <= _STILL * loss:
                break
            loss = new
        return coefficients

    def interval(self, coefficients: Matrix) -> Matrix:
        """(k, 2) around fitted coefficients.

        The spread over tensors (jackknife) of what lies outside the intervals, and how far each coefficient alone could go without
        taking any weight out of its interval.
        """
        outside, k = self.outside(coefficients), len(coefficients)
        gram, correlation = np.zeros((self.tensors, k, k)), np.zeros((self.tensors, k))
        for place in range(self.tensors):
            wrong = ((self.owner == place) & (outside != 0)).nonzero()[:, 0]
            active = self.regressors[:, wrong]
            gram[place] = (active @ active.T).numpy()
            correlation[place] = gram[place] @ coefficients - (active @ outside[wrong]).numpy()
        spread = jackknife_interval(gram, correlation, coefficients) if gram.any() else np.stack([coefficients, coefficients], 1)
        total = torch.from_numpy(coefficients) @ self.regressors
        up, down = (self.high - total).clamp_min(0), (total - self.low).clamp_min(0)
        for place, atom in enumerate(self.regressors):
            moved = atom != 0
            larger = torch.where(atom > 0, up, down)[moved] / atom[moved].abs()
            smaller = torch.where(atom > 0, down, up)[moved] / atom[moved].abs()
            spread[place] += np.array([-float(smaller.min()), float(larger.min())]) if bool(moved.any()) else np.array([-np.inf, np.inf])
        return spread
