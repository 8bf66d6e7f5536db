"""What the components leave: noise, or something unknown with a rank of its own.

Flipping the signs of a matrix's entries at random keeps its noise, however uneven over rows and columns (rounding follows the
weights, dare follows the atoms), and destroys whatever had a low rank. So singular values above the largest one of the flipped
matrix are signal (parallel analysis by sign flips; Hong, Sheng and Dobriban 2020, arXiv 2012.02985). Signal that was found is taken
out and the rest flipped again, since signal spreads over the flipped matrix and hides weaker one. Taking k directions out of a
p x q matrix takes a share (1 - k/p)(1 - k/q) of the noise's energy with them, and leaves noise that ends at sqrt(p - k) + sqrt(q - k)
where it ended at sqrt(p) + sqrt(q): the edge is corrected for both.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from unmerge.certificate.range_finder import Leading
from unmerge.vectors import Delta, Dense, LowRank, Subtracted, in_scratch, is_large, norm_squared, torch_threads

#: what is smaller than this share of the target's change is the rounding of float32 computations
_NOTHING = 1e-5
#: each flip is one draw of where noise ends; the largest counts
_FLIPS = 4
#: the edge is widened by this factor, so that the largest noise value stays below it
_MARGIN = 1.05
#: signal that takes more than this share of the directions cannot be told from noise
_MOST = 0.5


def left_over(target: Delta, components: Sequence[Delta], square: float | None = None) -> Delta | None:
    """target - sum of components, low-rank where all of them are; None where nothing is left but float32's rounding.

    In float64; of a dense change of more than LARGE weights in float32, no component is expanded, and what is left of two checkpoints lies in
    this thread's scratch memory.

    Args:
        target: the target.
        components: what it holds, at their coefficients.
        square: the target's squared norm, where it is known.
    """
    parts = [target, *(delta.scaled(-1.0) for delta in components)]
    low = [part for part in parts if isinstance(part, LowRank)]
    rest: Delta
    if len(low) == len(parts):
        rest = LowRank(torch.cat([part.b.double() for part in low], 1), torch.cat([part.a.double() for part in low], 0))
    elif is_large(target.shape):
        total = in_scratch(target).float() if isinstance(target, Subtracted) else target.dense().float().clone()
        for component in components:
            if isinstance(component, LowRank):
                total.addmm_(component.b.to(total), component.a.to(total), alpha=-1)
            else:
                total -= component.dense().to(total)
        rest = Dense(total)
    else:
        total = parts[0].dense().double()
        for part in parts[1:]:
            total = total + part.dense().double()
        rest = Dense(total)
    return rest if norm_squared(rest) > _NOTHING**2 * (norm_squared(target) if square is None else square) else None


def rank_above_noise(delta: Delta, square: float, leading: Leading | None = None) -> int:
    """The rank of what is left of a target; of a low-rank change, which has no noise, the directions that are more than rounding.

    Args:
        delta: what is left.
        square: the target's squared norm.
        leading: its leading singular triples, where they were found before: then noise is flipped in a block of it.
    """
    nothing = _NOTHING * math.sqrt(square)
    if isinstance(delta, LowRank):
        return int((delta.svd()[1] > nothing).sum())
    return signal_rank_by_flips(delta.values, nothing) if leading is None else _rank_by_flips_of_a_block(leading, nothing)


def signal_rank_by_flips(matrix: Float[Tensor, "out into"], nothing: float = 0.0) -> int:
    """How many singular values of a matrix stand above its noise, and above what counts as nothing."""
    rows, columns = matrix.shape
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    generator = torch.Generator().manual_seed(0)
    flips = [torch.randint(0, 2, matrix.shape, generator=generator).double() * 2 - 1 for _ in range(_FLIPS)]
    rank = 0
    while rank <= _MOST * min(rows, columns):
        rest = matrix - (left[:, :rank] * values[:rank]) @ right[:rank]
        energy = math.sqrt((1 - rank / rows) * (1 - rank / columns))
        reach = (math.sqrt(rows - rank) + math.sqrt(columns - rank)) / (math.sqrt(rows) + math.sqrt(columns))
        edge = _MARGIN * max(_largest(rest * signs) for signs in flips) * reach / energy
        above = int((values > max(edge, nothing)).sum())
        if above <= rank:
            break
        rank = above
    return rank


def _rank_by_flips_of_a_block(leading: Leading, nothing: float) -> int:
    """The same from leading triples. The largest singular value of noise grows with sqrt(out) + sqrt(into): that of a block tells it."""
    rows, columns = leading.matrix.shape
    generator = torch.Generator().manual_seed(0)
    flips = [
        (torch.randint(0, 2, (len(leading.rows), len(leading.columns)), generator=generator).double() * 2 - 1).to(leading.matrix.device)
        for _ in range(_FLIPS)
    ]
    whole, part = math.sqrt(rows) + math.sqrt(columns), math.sqrt(len(leading.rows)) + math.sqrt(len(leading.columns))
    rank = 0
    while True:
        rest = leading.noise_block(rank)
        energy = math.sqrt((1 - rank / rows) * (1 - rank / columns))
        reach = (math.sqrt(rows - rank) + math.sqrt(columns - rank)) / whole
        edge = _MARGIN * max(_largest(rest * signs) for signs in flips) * whole / part * reach / energy
        above = int((leading.values > max(edge, nothing)).sum())
        if above <= rank or above > _MOST * min(rows, columns):
            return max(above, rank)
        if not leading.covers(above):
            leading = leading.more()
            above = int((leading.values > max(edge, nothing)).sum())
        rank = above


def _largest(matrix: Tensor) -> float:
    """The largest singular value."""
    gram = matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix
    with torch_threads(1):
        return math.sqrt(max(float(torch.linalg.eigvalsh(gram)[-1]), 0.0))
