"""A problem over all tensors, with its sums by layer and by kind of module."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from unmerge.solvers import KINDS, LAYERS, Blocks, Problem
from unmerge.vectors import Gram, kind_of, layer_of


def rows_by(block_of: Callable[[str], str], products: Gram) -> dict[str, list[int]]:
    """Which tensors, by place, are in which block."""
    rows: dict[str, list[int]] = {}
    for row, tensor in enumerate(products.tensors):
        rows.setdefault(block_of(tensor), []).append(row)
    return rows


def problem_of(products: Gram) -> Problem:
    """One problem over all tensors, with its sums by layer and by kind of module."""
    return Problem(
        products.gram.sum(0),
        products.correlation.sum(0),
        float(products.norm_squared.sum()),
        {LAYERS: _blocks(products, layer_of), KINDS: _blocks(products, kind_of)},
    )


def _blocks(products: Gram, block_of: Callable[[str], str]) -> Blocks:
    rows = rows_by(block_of, products)
    n = len(products.atoms)
    sums = [(products.gram[places].sum(0), products.correlation[places].sum(0), products.norm_squared[places].sum()) for places in rows.values()]
    return Blocks(
        tuple(rows),
        np.array([gram for gram, _, _ in sums]).reshape(-1, n, n),
        np.array([correlation for _, correlation, _ in sums]).reshape(-1, n),
        np.array([norm for _, _, norm in sums]),
    )
