"""Batch top-k, and the loss that is left: the core of the method.

    c = V_in g,   keep the largest |c| over batch x subnetworks,   g_hat = V_out c,   loss = ||g - g_hat||^2 / ||g||^2

From inner products alone: ||g - g_hat||^2 = ||g||^2 - 2 <c, V_out^T g> + c^T (V_out^T V_out) c.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from unmerge.circuits.directions import Directions


def batch_top_k(coefficients: Float[Tensor, "runs batch n_v"], share: float) -> Float[Tensor, "runs batch n_v"]:
    """The coefficients with all but the largest ``share`` of a batch set to zero; at least one is kept."""
    sizes = coefficients.detach().abs().flatten(1)
    kept = max(1, round(share * sizes.shape[1]))
    least = sizes.topk(kept, 1).values[:, -1]
    # where coefficients are zero there is nothing to keep: they do not count as active
    return coefficients * (sizes >= least.clamp_min(torch.finfo(sizes.dtype).tiny)[:, None]).view_as(coefficients)


def squared_error(
    gradients: Mapping[str, Tensor], squares: Float[Tensor, "runs batch"], coefficients: Float[Tensor, "runs batch n_v"], decoder: Directions
) -> Float[Tensor, " runs"]:
    """sum_i ||g_i - V_out c_i||^2 of each run, without forming g_hat.

    Args:
        gradients: g, by tensor.
        squares: ||g_i||^2.
        coefficients: c, after batch top-k.
        decoder: V_out.
    """
    along = (coefficients * decoder.project(gradients)).sum((1, 2))
    within = ((coefficients @ decoder.gram()) * coefficients).sum((1, 2))
    return squares.sum(1) - 2 * along + within
