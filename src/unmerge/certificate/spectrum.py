"""Where the signal of a matrix ends and its noise begins.

The bulk of the singular values is fitted by the Marchenko-Pastur law: its median tells the noise's standard deviation, its
edge is where singular values of pure noise end (Marchenko and Pastur 1967; Gavish and Donoho 2014, arXiv 1305.5870, who
scale the median in the same way). Taking values above the edge out of the bulk and fitting again is repeated until still.
A matrix of exact low rank has no noise: its signal is its numerical rank.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from unmerge.certificate.range_finder import Leading
from unmerge.vectors import Delta, LowRank, is_large, torch_threads

Values = NDArray[np.float64]

#: singular values below this share of the largest one are zero
_ZERO = 1e-6
#: a matrix whose numerical rank is below this share of its width has no noise
_LOW = 0.9
#: the edge is widened by this factor, so that the largest noise value stays below it
_MARGIN = 1.03


@dataclass(frozen=True)
class Signal:
    """The signal part of one tensor's change.

    Attributes:
        left: (out, rank) orthonormal.
        right: (in, rank) orthonormal.
        values: (rank,) singular values above the edge.
        noise: standard deviation of the noise in one entry; 0 without noise.
        edge: the singular value at which pure noise ends; 0 without noise.
        cut: without noise, the singular value below which nothing can be told: rounding in a dense change, the last value of a
            low-rank one. 0 with noise.
        shape: (out, in).
        error: the largest ||T v - s u|| / s of the values kept, where they were not found by a full decomposition.
    """

    left: Float[Tensor, "out rank"]
    right: Float[Tensor, "into rank"]
    values: Float[Tensor, " rank"]
    noise: float
    edge: float
    cut: float
    shape: tuple[int, int]
    error: float = 0.0

    @property
    def rank(self) -> int:
        return len(self.values)

    @property
    def filled(self) -> float:
        """The containment that a random direction pair has: rank / out x rank / in."""
        return self.rank**2 / (self.shape[0] * self.shape[1])


def signal_of(delta: Delta) -> Signal:
    """Split a change of a matrix into signal and noise, in float64.

    A low-rank change has no noise, but it may be what a truncated decomposition left of another one (PEFT's ``svd``, extracted
    adapters): what lies below its last singular value cannot be told. A dense change of more than LARGE weights is not decomposed in full
    (``range_finder``).
    """
    shape = (delta.shape[0], delta.shape[1])
    if isinstance(delta, LowRank):
        left, values, transposed = delta.svd()
    elif is_large(shape):
        return signal_of_wide(delta.values.float())[0]
    else:
        left, values, transposed = torch.linalg.svd(delta.values.double(), full_matrices=False)
    rank, noise, edge = signal_rank(values.numpy(), shape)
    cut = 0.0 if noise or not rank else float(values[rank - 1] if isinstance(delta, LowRank) else _ZERO * values[0])
    return Signal(left[:, :rank], transposed[:rank].T, values[:rank], noise, edge, cut, shape)


def signal_of_wide(matrix: Float[Tensor, "out into"], expected: int | None = None) -> tuple[Signal, Leading]:
    """The same from leading singular triples and a block of noise, and the triples: as many as show that the rest is noise.

    Args:
        matrix: the change.
        expected: its rank, where something is known of it.
    """
    found = Leading.of(matrix) if expected is None else Leading.of(matrix, Leading.enough_for(expected))
    while True:
        rank, noise, edge = _rank_of_leading(found)
        if found.covers(rank):
            break
        found = found.more()
    kept = found.only(rank)
    cut = 0.0 if noise or not rank else _ZERO * float(found.values[0])
    error = float((kept.residuals() / kept.values).max()) if rank else 0.0
    return Signal(kept.left.cpu(), kept.right.cpu(), kept.values.cpu(), noise, edge, cut, (matrix.shape[0], matrix.shape[1]), error), found


def _rank_of_leading(found: Leading) -> tuple[int, float, float]:
    """As ``signal_rank``; the median of the bulk is that of a block of noise."""
    values, (out, into) = found.values.cpu().numpy(), found.matrix.shape
    if found.is_full:
        return signal_rank(values, (out, into))
    numerical = int((values > _ZERO * values[0]).sum()) if len(values) and values[0] > 0 else 0
    if numerical < len(values) or found.exhausted:
        return numerical, 0.0, 0.0
    short, long = min(out, into), max(out, into)
    rank, noise, end = 0, 0.0, 0.0
    while short - rank > 2 and (rank == 0 or found.covers(rank)):
        block = found.noise_block(rank)
        squares = block @ block.T if block.shape[0] <= block.shape[1] else block.T @ block
        with torch_threads(1):
            bulk = torch.linalg.eigvalsh(squares)
        median = _median_of_noise(round(min(block.shape) / max(block.shape), 4)) * math.sqrt(max(block.shape))
        energy = math.sqrt((1 - rank / out) * (1 - rank / into))  # the noise that left with the signal
        noise = math.sqrt(max(float(bulk.quantile(0.5)), 0.0)) / median / energy
        _, edge = _marchenko_pastur(round((short - rank) / (long - rank), 4))
        end = _MARGIN * noise * edge * math.sqrt(long - rank)
        above = int((values > end).sum())
        if above <= rank:
            break
        rank = above
    return rank, noise, end


def signal_rank(values: Values, shape: tuple[int, int]) -> tuple[int, float, float]:
    """How many singular values are signal, and the standard deviation of the noise below them.

    Args:
        values: all singular values, largest first.
        shape: (out, in) of the matrix.

    Returns:
        (rank, standard deviation of one entry of the noise, the singular value at which it ends).
    """
    numerical = int((values > _ZERO * values[0]).sum()) if len(values) and values[0] > 0 else 0
    short, long = min(shape), max(shape)
    if numerical < _LOW * short:
        return numerical, 0.0, 0.0
    rank, noise, end = 0, 0.0, 0.0
    while len(bulk := values[rank:]) > 2:
        aspect = len(bulk) / (long - rank)
        median, edge = _marchenko_pastur(round(aspect, 4))
        noise = float(np.median(bulk)) / median / np.sqrt(long - rank)
        end = _MARGIN * noise * edge * float(np.sqrt(long - rank))
        above = int((bulk > end).sum())
        if above == 0:
            break
        rank += above
    return rank, noise, end


@functools.lru_cache(maxsize=4096)
def _marchenko_pastur(aspect: float) -> tuple[float, float]:
    """Median and edge of the singular values of noise of unit variance, over the square root of the longer side."""
    low, high = (1 - np.sqrt(aspect)) ** 2, (1 + np.sqrt(aspect)) ** 2
    grid = np.linspace(low, high, 4001)[1:-1]
    mass = np.cumsum(np.sqrt((high - grid) * (grid - low)) / grid)
    return float(np.sqrt(np.interp(0.5, mass / mass[-1], grid))), float(np.sqrt(high))


@functools.lru_cache(maxsize=256)
def _median_of_noise(aspect: float) -> float:
    """The median of ``_marchenko_pastur`` where the density may have a pole at 0 (square blocks): that one is 2% low there."""
    low, high = (1 - np.sqrt(aspect)) ** 2, (1 + np.sqrt(aspect)) ** 2
    angle = (np.arange(20_000) + 0.5) * (np.pi / 2 / 20_000)
    squares = low + (high - low) * np.sin(angle) ** 2  # the substitution takes the roots at both ends away, and the pole
    mass = np.cumsum(np.square((high - low) * np.sin(angle) * np.cos(angle)) / squares)
    return float(np.sqrt(np.interp(0.5, mass / mass[-1], squares)))


def expected_containment(strength: Values, noise: float, cut: float, shape: tuple[int, int]) -> Values:
    """How far a direction of the signal stands in the empirical signal subspaces: |<u, u^>|^2 |<v, v^>|^2.

    The spiked matrix model (Benaych-Georges and Nadakuditi 2012, arXiv 1103.2221): 0 below the transition at
    (short / long)^(1/4). Without noise 1, less for a direction weaker than the cut.

    Args:
        strength: singular values of the planted directions.
        noise: standard deviation of one entry.
        cut: of a target without noise, as in ``Signal``.
        shape: (out, in).
    """
    if noise == 0:
        return np.minimum((strength / cut) ** 2, 1.0) if cut else np.zeros_like(strength)
    short, long = min(shape), max(shape)
    aspect = short / long
    square = (strength / (noise * np.sqrt(long))) ** 2
    seen = square**2 > aspect
    safe = np.where(seen, square, 1.0)
    along_short = 1 - aspect * (1 + safe) / (safe * (safe + aspect))
    along_long = 1 - (aspect + safe) / (safe * (safe + 1))
    return np.where(seen, along_short * along_long, 0.0)
