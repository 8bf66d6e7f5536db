"""Exact decomposition in factored form against expand, mask and solve: one attention layer of Qwen2.5-7B, in one run.

    python benchmarks/exact_against_expanded.py [--json FILE]

Synthetic adapters with real shapes. Both ways solve the same non-negative least-squares problem; the expanded way forms
every dW, keeps the 100,000 entries that are largest over the dictionary, and solves on those.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from scipy.optimize import nnls as scipy_nnls

from unmerge.core.records import environment
from unmerge.solvers import Problem
from unmerge.solvers.nnls import nnls
from unmerge.vectors import Dense, Held, LowRank, gram

SHAPES = {"q_proj": (3584, 3584), "k_proj": (512, 3584), "v_proj": (512, 3584), "o_proj": (3584, 3584)}
ATOMS, RANK, KEPT, ROUNDS = 8, 32, 100_000, 3
WEIGHTS = (0.9, 0.0, 0.6, 0.0, 0.0, 0.3, 0.0, 0.0)


def main() -> None:
    """Time the three ways in turn, several rounds, and print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    atoms = [Held(f"atom{place}", {name: _low_rank(shape) for name, shape in SHAPES.items()}) for place in range(ATOMS)]
    present = [(atom, weight) for atom, weight in zip(atoms, WEIGHTS, strict=True) if weight]
    adapter = Held(
        "adapter",
        {
            name: LowRank(
                torch.cat([weight * _factors(atom, name).b for atom, weight in present], 1),
                torch.cat([_factors(atom, name).a for atom, _ in present]),
            )
            for name in SHAPES
        },
    )
    dense = Held("checkpoint", {name: Dense(adapter.delta(name).dense()) for name in SHAPES})
    ways: dict[str, Callable[[], np.ndarray]] = {
        "expand, mask to 100k, solve": lambda: _expanded(atoms, dense),
        "exact, checkpoint as target": lambda: _exact(atoms, dense),
        "exact, adapter as target": lambda: _exact(atoms, adapter),
    }
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    errors: dict[str, float] = {}
    for _ in range(ROUNDS):
        for way, solve in ways.items():
            started = time.perf_counter()
            coefficients = solve()
            seconds[way].append(time.perf_counter() - started)
            errors[way] = float(np.abs(coefficients - WEIGHTS).max())
    medians = {way: statistics.median(times) for way, times in seconds.items()}
    slowest = medians["expand, mask to 100k, solve"]
    print(f"One attention layer of Qwen2.5-7B, {ATOMS} adapters of rank {RANK}, {torch.get_num_threads()} threads, median of {ROUNDS}")
    for way, median in medians.items():
        print(f"  {way:30s} {median:7.3f} s   {slowest / median:6.1f} x   largest coefficient error {errors[way]:.1e}")
    if arguments.json:
        rows = {way: {"seconds": medians[way], "ratio": slowest / medians[way], "largest_error": errors[way]} for way in ways}
        record = {"atoms": ATOMS, "rank": RANK, "threads": torch.get_num_threads(), "rows": rows, "environment": environment().model_dump()}
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(record, indent=2) + "\n")


def _low_rank(shape: tuple[int, int]) -> LowRank:
    return LowRank(torch.randn(shape[0], RANK) / RANK, torch.randn(RANK, shape[1]) / RANK)


def _factors(atom: Held, name: str) -> LowRank:
    delta = atom.delta(name)
    assert isinstance(delta, LowRank)
    return delta


def _exact(atoms: list[Held], target: Held) -> np.ndarray:
    products = gram(atoms, target)
    return nnls(Problem(products.gram.sum(0), products.correlation.sum(0), float(products.norm_squared.sum()))).coefficients


def _expanded(atoms: list[Held], target: Held) -> np.ndarray:
    columns: list[list[np.ndarray]] = [[] for _ in atoms]
    rows = []
    share = KEPT / sum(out * into for out, into in SHAPES.values())
    for name in SHAPES:
        expanded = [atom.delta(name).dense().reshape(-1) for atom in atoms]
        largest = torch.stack([values.abs() for values in expanded]).amax(0)
        kept = torch.topk(largest, int(share * largest.numel())).indices
        for column, values in zip(columns, expanded, strict=True):
            column.append(values[kept].numpy())
        rows.append(target.delta(name).dense().reshape(-1)[kept].numpy())
    matrix = np.stack([np.concatenate(column) for column in columns], 1).astype(np.float64)
    return scipy_nnls(matrix, np.concatenate(rows).astype(np.float64))[0]


if __name__ == "__main__":
    main()
