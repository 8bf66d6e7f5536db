"""Ways to subtract a component, to be compared.

- *whole*: c dW.
- *orthogonal*: c (dW - P_U dW P_V), where U and V are the column and row spaces of the other components in the same tensor: the part that
  could as well be theirs stays in the model (what is left is orthogonal to every matrix that lies in their spaces). Components without a low
  rank share every direction, and leave nothing to remove.
- *by module*: each tensor has a coefficient of its own, the posterior mean of a normal model: tensors draw c_t ~ N(c, tau^2), and least
  squares over the components sees c_t with variance s_t^2. tau^2 by the method of moments (DerSimonian and Laird 1986, Controlled Clinical
  Trials 7). Where all tensors agree within their errors tau is 0, and the way is the whole atom.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from unmerge.vectors import Delta, Dense, Gram, Held, LowRank, TaskVector

#: singular values below this share of the largest are no direction
_RANK = 1e-5


def orthogonal(atom: TaskVector, others: Sequence[TaskVector]) -> Held:
    """The atom without what it shares with the other components, tensor by tensor.

    A change that is not a matrix has no column and row space; it stays whole.
    """
    return Held(
        atom.name,
        {tensor: _unshared(atom.delta(tensor), [other.delta(tensor) for other in others if tensor in other.shapes]) for tensor in atom.shapes},
    )


def _unshared(delta: Delta, others: Sequence[Delta]) -> Delta:
    if not others or len(delta.shape) != 2:
        return delta
    left, right = _basis([_sides(other)[0] for other in others]), _basis([_sides(other)[1] for other in others])
    if not isinstance(delta, LowRank):
        return Dense(delta.values - ((left @ (left.T @ delta.values)) @ right) @ right.T)
    # B A - (P_U B) (A P_V), as factors
    return LowRank(torch.cat([delta.b, -(left @ (left.T @ delta.b))], 1), torch.cat([delta.a, (delta.a @ right) @ right.T]))


def _sides(delta: Delta) -> tuple[Float[Tensor, "out columns"], Float[Tensor, "into rows"]]:
    """Matrices with the columns of a change and with its rows."""
    return (delta.b.float(), delta.a.float().T) if isinstance(delta, LowRank) else (delta.values.float(), delta.values.float().T)


def _basis(sides: Sequence[Float[Tensor, "dimension _"]]) -> Float[Tensor, "dimension rank"]:
    """An orthonormal basis of all columns together."""
    columns = torch.cat([side / side.norm().clamp_min(torch.finfo(torch.float32).tiny) for side in sides], 1)
    left, values, _ = torch.linalg.svd(columns, full_matrices=False)
    basis: Tensor = left[:, values > _RANK * values[0]]
    return basis


def by_module(atom: TaskVector, coefficients: Mapping[str, float]) -> Held:
    """The atom with a coefficient for every tensor already in it."""
    return Held(atom.name, {tensor: atom.delta(tensor).scaled(coefficients[tensor]) for tensor in atom.shapes})


def posterior(products: Gram, coefficients: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """Of every component, the coefficient of each tensor that it changes.

    Args:
        products: of the dictionary with the target.
        coefficients: of the components, over all tensors.
    """
    chosen = [products.atoms.index(name) for name in coefficients]
    overall = np.array(list(coefficients.values()))
    gram, seen = products.gram[:, chosen][:, :, chosen], products.correlation[:, chosen]
    estimates, variances = np.full(seen.shape, np.nan), np.full(seen.shape, np.nan)
    for row, entries in enumerate(products.entries):
        here = np.flatnonzero(np.diag(gram[row]) > 0)
        if len(here):
            inside = gram[row][np.ix_(here, here)]
            inverse = np.linalg.pinv(inside, hermitian=True)
            estimate = inverse @ seen[row, here]
            rest = max(float(products.norm_squared[row] - estimate @ seen[row, here]), 0.0)
            estimates[row, here], variances[row, here] = estimate, rest / max(int(entries) - len(here), 1) * np.diag(inverse)
    between = np.maximum(np.nanmean((estimates - overall) ** 2 - variances, axis=0), 0.0)
    total = between + variances
    weight = np.divide(between, total, out=np.zeros_like(total), where=total > 0)
    means = overall + weight * (estimates - overall)
    return {
        name: {tensor: float(means[row, place]) for row, tensor in enumerate(products.tensors) if not np.isnan(means[row, place])}
        for place, name in enumerate(coefficients)
    }
