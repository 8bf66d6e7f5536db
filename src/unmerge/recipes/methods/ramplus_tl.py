"""ramplus_tl: as ram, and what only one atom changes is made larger, the more of that atom's changes others share (arXiv 2601.13572).

    lambda_i = 1 + r x min(shared_i / alone_i, alpha)        shared_i, alone_i: how many of atom i's changes, tensor by tensor

What gives it away: changes that stand alone are larger in the target than in the atom. Where an atom shares most of its changes,
as dense ones do, only r x alpha acts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from unmerge.recipes.case import Case
from unmerge.recipes.decimals import shortest
from unmerge.recipes.methods.ram import OTHERWISE, Averaged, averaged, recipe
from unmerge.recipes.polish import best, ordered
from unmerge.recipes.recipe import Recipe
from unmerge.recipes.weights import within_rounding

#: mergekit's defaults
R, ALPHA = 0.1, 0.2
#: spacing of lambda, which is computed in float32
_SINGLE = 2.0**-23
#: alphas that are tried, and how many of the best are run
_ALPHAS, _RUN = (ALPHA, *(number / 10 for number in range(1, 11) if number != 2), *(number / 100 for number in range(1, 100) if number % 10)), 6


def candidates(case: Case, atoms: Sequence[str]) -> Iterator[Recipe]:
    """Epsilon as under ram; r and alpha from how much larger changes are that stand alone."""
    dtypes = dict.fromkeys([case.computed, torch.bfloat16 if case.dtype is torch.float32 else case.computed])
    read = [found for dtype in dtypes if (found := averaged(case, atoms, dtype)) is not None and found.stretched() >= OTHERWISE]
    recipes = [recipe(atoms, "ramplus_tl", found, **settings) for found in read for settings in _settings(found)]
    if recipes:
        yield ordered(case, best(case, recipes, case.quick), case.quick[-1:])


def _settings(found: Averaged) -> list[dict[str, float]]:
    """What r and alpha may have been, the likeliest first."""
    changes, shared, more, half = _alone(found)
    alphas = _ALPHAS if float(shared.min()) < max(_ALPHAS) else (ALPHA,)
    tried = []
    for alpha in alphas:
        row = changes * shared.clamp(max=alpha)
        r = float(within_rounding(row[None], more, half))
        left = float(((more - r * row).abs() - half).clamp(min=0).square().sum())
        error = 3 * float(half.square().mean().sqrt() / row.norm().clamp(min=1e-300)) + _SINGLE / alpha
        tried.append((left, {"r": shortest(r - error, r + error), "alpha": alpha}))
    tried.sort(key=lambda pair: pair[0])  # stable: mergekit's default stays first among equals
    usual = {"r": R, "alpha": ALPHA}
    return [{name: value for name, value in settings.items() if value != usual[name]} for _, settings in tried[:_RUN]]


def _alone(found: Averaged) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Changes that stand alone: they, how many their atom shares for each, how much the target has more, and half its spacing."""
    flat, large, alone = found.flat, found.large, found.alone
    shared = torch.zeros_like(flat.atoms)
    for part in flat.parts.values():
        count = alone[:, part].sum(1)
        shared[:, part] = ((large[:, part].sum(1) - count) / count.clamp(min=1))[:, None]
    there = alone.any(0)
    changes, ratio = ((values * alone).sum(0)[there] for values in (flat.atoms, shared))
    return changes, ratio, flat.target[there] - changes, flat.half[there]
