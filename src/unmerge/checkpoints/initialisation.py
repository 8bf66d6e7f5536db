"""LoRA factors that start from the base's own weights, and the part of the base that they take out of it.

PiSSA (Meng, Wang and Zhang 2024, arXiv 2404.02948): of W = U S V^T the first r terms become s B0 A0, and the base keeps the rest.
OLoRA (Büyükakyüz 2024, arXiv 2406.01775): of W = Q R the first r columns of Q and rows of R become B0 and A0; s B0 A0 is taken off the base.

What acts on the base as it was is s B A - s B0 A0. Neither is in the adapter's file; both follow from the base: the leading terms, and
s Q Q^T W with Q an orthonormal basis of the first r columns of W.

``pissa_niter_N`` begins with a randomised decomposition, s B0 A0 = P W with P a random projection near the leading directions: an error of 5% to
70% of the leading part, which is more than training changes (matrices of 1024 rows, ranks 16 and 64, N of 4 and 16, singular values that fall
as k^-.6 and do not fall). It cannot be made again, and is told from an exact start by what it leaves: P W fits the product, W's leading part
does not.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from unmerge.vectors import LowRank, is_large, norm_squared, torch_threads, wide

#: the initialisations that are read, by the beginning of ``init_lora_weights``; and one that cannot be made again
PISSA, OLORA, RANDOMISED = "pissa", "olora", "randomised"
#: ||s B A - s B0 A0|| / ||s B0 A0|| below which factors are a trained B0 and A0, and the sine between the product and what B's own directions
#: leave of the base below which they are looked at. Of other adapters both are near 1; of PiSSA trained at ordinary rates .01 to .2. Answers do
#: not change from .25 to .9.
TRAINED = 0.5
#: ||s B A - P W|| / ||s B A - s B0 A0||, the larger one of both sides, P the projection on the factors' own directions: .71 to 1 where the
#: decomposition was exact (one side's training is left, at least), below .65 where it was not, both factors were trained alike and its error
#: was more than .43 of the change (72 settings of spectrum, rank, N and training)
EXACT = 0.65
#: directions beside the adapter's own, powers of W^T W in a block, and blocks at most; a triple is found when ||W^T u - s v|| is below this
#: share of the largest value: float32 has no more
_BESIDE, _POWERS, _BLOCKS, _FOUND = 8, 3, 8, 3e-6


def taken_out(kind: str, weights: Float[Tensor, "out into"], product: LowRank, scale: float) -> LowRank:
    """s B0 A0, as far as it follows from the base.

    Args:
        kind: PISSA or OLORA.
        weights: of the base, as they are stored.
        product: s B A, whose rank is that of B0 A0.
        scale: s.
    """
    if kind == OLORA:
        values = weights.double()
        basis = torch.linalg.qr(values[:, : product.rank])[0]
        return LowRank((scale * basis).float(), (basis.T @ values).float())
    return leading_part(weights, product)


def leading_part(weights: Float[Tensor, "out into"], product: LowRank) -> LowRank:
    """The first terms of a matrix's singular value decomposition, as many as a product that lies near them has.

    A large matrix is decomposed by block Krylov iteration (Musco and Musco 2015, arXiv 1504.05477) that begins with the product's own
    directions, and begins again with what it found until every triple is one.
    """
    rank = product.rank
    if not is_large(tuple(weights.shape)):
        with torch_threads(1):
            left, values, right = torch.linalg.svd(weights.double(), full_matrices=False)
        return LowRank((left[:, :rank] * values[:rank]).float(), right[:rank].float())
    matrix, generator = wide(weights), torch.Generator().manual_seed(0)
    block = torch.cat([product.a.T.double(), torch.randn((matrix.shape[1], rank + _BESIDE), generator=generator, dtype=torch.float64)], 1)
    left, values, right = _krylov(matrix, block)
    for _ in range(_BLOCKS - 1):
        missing = (left[:, :rank].to(matrix.dtype).T @ matrix).T.double() - right[:, :rank] * values[:rank]
        if float(torch.linalg.vector_norm(missing, dim=0).max()) <= _FOUND * float(values[0]):
            break
        left, values, right = _krylov(matrix, right[:, : block.shape[1]])
    return LowRank((left[:, :rank] * values[:rank]).float(), right[:, :rank].T.contiguous().float())


def start_of(weights: Float[Tensor, "out into"], product: LowRank, scale: float) -> str | None:
    """The initialisation from which a product was trained: PISSA, OLORA, RANDOMISED, or None where it does not lie in the base.

    Args:
        weights: of the base, as they are stored.
        product: s B A.
        scale: s.
    """
    before = _before(weights, product)
    along, square = _inner(product, before), norm_squared(product)
    if not square or along**2 < (1 - TRAINED**2) * square * norm_squared(before):
        return None
    for kind in (OLORA, PISSA):
        start = taken_out(kind, weights, product, scale)
        change = norm_squared(less(product, start))
        if change <= TRAINED**2 * norm_squared(start) and (kind == OLORA or _left(weights, product, before) >= EXACT**2 * change):
            return kind
    return RANDOMISED


def less(product: LowRank, start: LowRank) -> LowRank:
    """The difference of two products, by their factors side by side."""
    return LowRank(torch.cat([product.b, -start.b], 1), torch.cat([product.a, start.a], 0))


def _before(weights: Tensor, product: LowRank) -> LowRank:
    """P W, with P the projection on the left factor's directions."""
    basis = torch.linalg.qr(product.b.double())[0].to(wide(weights).dtype)
    return LowRank(basis, basis.T @ wide(weights))


def _left(weights: Tensor, product: LowRank, before: LowRank) -> float:
    """||s B A - P W||^2, or the same of the right factor's directions, whichever is larger."""
    basis = torch.linalg.qr(product.a.T.double())[0].to(wide(weights).dtype)
    return max(norm_squared(less(product, before)), norm_squared(less(product, LowRank(wide(weights) @ basis, basis.T.contiguous()))))


def _inner(one: LowRank, other: LowRank) -> float:
    return float(((one.b.double().T @ other.b.double()) * (one.a.double() @ other.a.double().T)).sum())


def _krylov(matrix: Tensor, block: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Singular triples of a matrix (left, values, right) over what some powers of W^T W make of a block of right directions."""
    blocks = [torch.linalg.qr(block)[0]]
    for _ in range(_POWERS):
        image = matrix.T @ (matrix @ blocks[-1].to(matrix.dtype))
        blocks.append(torch.linalg.qr(image.double())[0])
    basis = torch.linalg.qr(torch.cat(blocks, 1))[0]
    left, values, right = torch.linalg.svd((matrix @ basis.to(matrix.dtype)).double(), full_matrices=False)
    return left, values, basis @ right.T
