"""magnitude_prune: of each matrix the int(density x entries) largest entries are kept, and nothing is rescaled.

What gives it away: entries that no atom keeps are zero, and the others are linear combinations of what is kept.
"""

from __future__ import annotations

from torch import Tensor

from unmerge.recipes.combinations.kind import Kind


def _parts(raw: Tensor, kept: Tensor) -> Tensor:
    return raw * kept


MAGNITUDE_PRUNE = Kind("magnitude_prune", _parts, prunes=True)
