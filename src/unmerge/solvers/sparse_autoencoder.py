"""A sparse autoencoder whose decoder is the dictionary (Cunningham et al., arXiv 2309.08600; Gregor and LeCun, ICML 2010).

    encoder   x = ReLU(W k + a)         k: the target's products with the unit atoms
    decoder   t_hat = U x               U: the unit atoms, fixed
    loss      E [ 1/2 ||t - U x||^2 + lambda ||x||_1 ],   lambda = 0.1

An amortised encoder: one matrix is trained once for a dictionary, then every target costs one product. The loss is that of the
``nonnegative_lasso`` in expectation over synthetic mixtures: t = sum of 1 to 5 random atoms, weights uniform in [0.2, 1], plus in half of
them something unknown of up to the same length, which resembles the atoms as one of them, left out, resembles the others. The
target has length 1. W and a start at thresholded ridge, so that training can only improve on it.
Everything is computed from K, the n x n cosines: the loss is 1/2 - k^T x + x^T K x / 2 + lambda sum x. Adam, seed fixed, so the
same dictionary gives the same encoder.
No guarantee: the amortisation gap is the violation of the conditions of the ``nonnegative_lasso``, and it is reported. Named: contributions
of at least 0.1 ||t||, after the shrinking.
"""

from __future__ import annotations

from functools import lru_cache, partial

import numpy as np
import torch
from torch import Tensor

from unmerge.solvers.optimality import nonnegative, violation
from unmerge.solvers.problem import NAMED_SHARE, Matrix, Problem, Solution, Vector
from unmerge.solvers.ridge import ALPHA

_SEED, _STEPS, _BATCH, _RATE = 0, 200, 256, 3e-3
#: components of a synthetic mixture, and the range of their weights
_COMPONENTS, _LEAST_WEIGHT = 5, 0.2


def sparse_autoencoder(problem: Problem, penalty: float = NAMED_SHARE) -> Solution:
    """Encode the target. The encoder is trained on the first use of a dictionary and kept for the next."""
    matrix, bias = _encoder(problem.cosines.tobytes(), problem.size, penalty)
    shares = np.maximum(matrix @ problem.target_cosines + bias, 0.0) * (problem.norms > 0) * (problem.norm_squared > 0)
    return problem.answer(
        shares,
        violation=violation(shares, problem.share_gradient(shares), partial(nonnegative, penalty=penalty)),
        steps=_STEPS,
        stopped=f"an encoder trained for {_STEPS} steps on synthetic mixtures; the violation is its distance from the non-negative lasso",
    )


@lru_cache(maxsize=16)
def _encoder(cosines: bytes, size: int, penalty: float) -> tuple[Matrix, Vector]:
    """(W, a) for a dictionary, given by its (n, n) cosines in float64; as bytes, so that they can be looked up again."""
    if not size:
        return np.zeros((0, 0)), np.zeros(0)
    between = torch.frombuffer(bytearray(cosines), dtype=torch.float64).reshape(size, size)
    unknown = _left_out(between)
    generator = torch.Generator().manual_seed(_SEED)
    matrix = torch.linalg.inv(between + ALPHA * torch.eye(size, dtype=torch.float64)).requires_grad_()
    bias = (-penalty * matrix.detach().sum(1)).requires_grad_()
    optimiser = torch.optim.Adam([matrix, bias], _RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, _STEPS)
    for _ in range(_STEPS):
        products = _mixtures(between, unknown, generator)
        x = torch.relu(products @ matrix.T + bias)
        loss = (x * (0.5 * x @ between - products + penalty)).sum(1).mean()
        matrix.grad, bias.grad = torch.autograd.grad(loss, [matrix, bias])
        optimiser.step()
        schedule.step()
    return matrix.detach().numpy(), bias.detach().numpy()


def _left_out(between: Tensor) -> Tensor:
    """(n, n) row j: the products of something unknown, of length 1, with the atoms, if it resembles them as atom j does the others."""
    size = len(between)
    others = between - torch.diag(between.diag())
    return others + torch.diag(others.sum(1) / max(size - 1, 1))


def _mixtures(between: Tensor, unknown: Tensor, generator: torch.Generator) -> Tensor:
    """(batch, n) products of synthetic targets, of length 1, with the atoms."""
    size = len(between)

    def uniform(columns: int) -> Tensor:
        return torch.rand(_BATCH, columns, generator=generator, dtype=torch.float64)

    counts = torch.randint(1, min(_COMPONENTS, size) + 1, (_BATCH, 1), generator=generator)
    chosen = uniform(size).argsort(1).argsort(1) < counts
    shares = chosen * (_LEAST_WEIGHT + (1 - _LEAST_WEIGHT) * uniform(size))
    known = shares @ between
    squared = (known * shares).sum(1, keepdim=True)
    length = squared.sqrt() * uniform(1) * (uniform(1) < 0.5)
    products = unknown[torch.randint(size, (_BATCH,), generator=generator)]
    both = squared + 2 * length * (products * shares).sum(1, keepdim=True) + length**2
    return (known + length * products) / both.clamp_min(1e-12).sqrt()
