"""passthrough: one model as it is. What gives it away: equality."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from unmerge.recipes.case import Case
from unmerge.recipes.recipe import Input, Recipe


def candidates(case: Case, atoms: Sequence[str]) -> Iterator[Recipe]:
    """Every atom alone: an adapter merged into the base, or a checkpoint under another name."""
    for atom in atoms:
        yield Recipe("passthrough", (Input(atom),), dtype=case.dtype_name)
