"""ties in PEFT (after Yadav et al. 2023, arXiv 2306.01708): prune by magnitude, elect a sign, average what agrees.

Not mergekit's: the sign is elected before anything is weighed, by the sum ("total") or the count ("frequency") of what is
kept, ties to +; and the weighed sum of what agrees is divided by how many agree, so that weights are known with their scale.

What gives it away: where one atom agrees its factor is w, where two do w / 2; masks and signs do not depend on the weights.
"""

from __future__ import annotations

import torch
from torch import Tensor

from unmerge.recipes.combinations.kind import Kind


def averaged(taken: Tensor, votes: Tensor) -> Tensor:
    """(n, ...) the part of each that has the sign that the votes elect, divided by how many have."""
    majority = torch.where(votes.sum(0) >= 0, 1.0, -1.0)
    agrees = taken.sign() == majority
    return taken * agrees / agrees.sum(0).clamp(min=1)


def _by_total(raw: Tensor, kept: Tensor) -> Tensor:
    return averaged(raw * kept, raw * kept)


def _by_frequency(raw: Tensor, kept: Tensor) -> Tensor:
    return averaged(raw * kept, (raw * kept).sign())


TIES = (Kind("ties", _by_total, prunes=True, majority="total"), Kind("ties", _by_frequency, prunes=True, majority="frequency"))
