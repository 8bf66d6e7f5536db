"""What mergekit's task-arithmetic family does once changes are sparsified, in its dtype and order, for many weights at once.

    weigh; elect a sign or not; sum; divide by the weights of what agrees or not; times lambda; add the base

``forward`` runs mergekit itself, one recipe at a time; thousands of weights are compared here, and the tests hold both together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

#: numbers in memory at once
_ROOM = 8_000_000


@dataclass(frozen=True)
class Sums:
    """Some weights of a merge.

    Attributes:
        deltas: (n, S) sparsified changes, in the dtype of the merge.
        base: (S,).
        wanted: (S,) of the target, whose dtype may be narrower.
        elected: whether only what has the sign of the weighed sum is summed.
        normalised: whether the sum is divided by the weights that take part.
    """

    deltas: Tensor
    base: Tensor
    wanted: Tensor
    elected: bool
    normalised: bool

    def some(self, places: Tensor) -> Sums:
        """The chosen weights only."""
        return replace(self, deltas=self.deltas[:, places], base=self.base[places], wanted=self.wanted[places])

    def ordered(self, order: Sequence[int]) -> Sums:
        """With the atoms in another order."""
        return replace(self, deltas=self.deltas[list(order)])

    def made(self, weights: Tensor, factor: float) -> Tensor:
        """(C, S) the merged weights under (C, n) weights and one lambda."""
        acting = weights.to(self.deltas.dtype).T[:, :, None]
        weighed = self.deltas[:, None] * acting
        if self.elected:
            agrees = weighed.sign() == torch.where(weighed.sum(0) >= 0, 1, -1)
            mixed, divisor = (weighed * agrees).sum(0), (acting * agrees).sum(0)
            divisor[divisor == 0] = 1
        else:
            mixed, divisor = weighed.sum(0), acting.sum(0)
            divisor[divisor.abs() < 1e-8] = 1
        if self.normalised:
            mixed /= divisor
        if factor != 1:
            mixed *= factor
        return self.base + mixed

    def shares(self, weights: Tensor, factor: float) -> Tensor:
        """(C,) the share of identical weights."""
        step = max(1, _ROOM // max(self.deltas.numel(), 1))
        return torch.cat([(self.made(some, factor).to(self.wanted.dtype) == self.wanted).double().mean(1) for some in torch.split(weights, step)])
