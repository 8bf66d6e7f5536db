"""What each merge method leaves behind: from a target and the atoms in it to recipes that may have made it, best guess first."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from unmerge.recipes.case import Case
from unmerge.recipes.methods import (
    arcee_fusion,
    breadcrumbs,
    breadcrumbs_ties,
    by_layer,
    karcher,
    linear,
    model_stock,
    multislerp,
    nearswap,
    nuslerp,
    passthrough,
    ram,
    ramplus_tl,
    sce,
    slerp,
    task_arithmetic,
    ties,
)
from unmerge.recipes.recipe import Recipe

#: what a method's file offers: the recipes of that method that may have made the target of some atoms
Candidates = Callable[[Case, Sequence[str]], Iterator[Recipe]]

#: methods whose outcome is determined, those that are quick to try first
DETERMINED: dict[str, Candidates] = {
    "passthrough": passthrough.candidates,
    "task_arithmetic": task_arithmetic.candidates,
    "linear": linear.candidates,
    "slerp": slerp.candidates,
    "karcher": karcher.candidates,
    "model_stock": model_stock.candidates,
    "arcee_fusion": arcee_fusion.candidates,
    "nearswap": nearswap.candidates,
    "breadcrumbs": breadcrumbs.candidates,
    "ties": ties.candidates,
    "breadcrumbs_ties": breadcrumbs_ties.candidates,
    "sce": sce.candidates,
    "ram": ram.candidates,
    "ramplus_tl": ramplus_tl.candidates,
    "linear or task_arithmetic by layer": by_layer.candidates,
    "nuslerp": nuslerp.candidates,
    "multislerp": multislerp.candidates,
}

#: those that take seconds of search on what they nearly make
SLOW = frozenset({"linear or task_arithmetic by layer", "nuslerp", "multislerp"})

#: those that treat every weight by itself, so that some rows of a tensor tell all that the whole would
BY_WEIGHT = frozenset({"task_arithmetic", "linear", "linear or task_arithmetic by layer"})

__all__ = ["BY_WEIGHT", "DETERMINED", "SLOW", "Candidates"]
