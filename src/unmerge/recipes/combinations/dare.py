"""dare_linear and dare_ties in PEFT (after Yu et al. 2024, arXiv 2311.03099): keep entries at random, divide by the density, combine.

    dare_linear    the sum of w_i m_i X_i / density
    dare_ties      a sign is elected by what is kept, before anything is weighed; the average of what agrees

What gives it away: every entry is one of the 2^n sums that n masks make, with one density and one weight for each atom in all
modules. PEFT's rescale is 1 / density itself, where mergekit's depends on the masks that were drawn.
"""

from __future__ import annotations

from unmerge.recipes.combinations.kind import Kind
from unmerge.recipes.combinations.magnitude_prune import MAGNITUDE_PRUNE
from unmerge.recipes.combinations.ties import TIES

#: the division by the density is left to the coefficients; otherwise the kinds differ in their masks only
DARE = (
    Kind("dare_linear", MAGNITUDE_PRUNE.parts),
    *(Kind("dare_ties", kind.parts, majority=kind.majority) for kind in TIES),
)
