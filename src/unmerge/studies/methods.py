"""Which methods a study compares, and in which spaces each can be asked."""

from __future__ import annotations

from unmerge.decomposition.spaces import SPACES
from unmerge.solvers import SOLVERS

#: every method, with the spaces that it can be asked in
METHODS: dict[str, tuple[str, ...]] = {method: tuple(SPACES) for method in SOLVERS}
