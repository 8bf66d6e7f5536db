"""How far one sample's output lies from its reference's: D(f(x_i, W), f(x_r, W_0)), the reference held fixed.

Every divergence is summed over outputs, not averaged, and differentiated in its first argument alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

#: (output, reference), both of one sample, to a scalar
Divergence = Callable[[Tensor, Tensor], Tensor]


def squared_error(output: Float[Tensor, "*shape"], reference: Float[Tensor, "*shape"]) -> Float[Tensor, ""]:
    """||f - f_r||^2; its gradient is 2 (f - f_r) J."""
    return ((output - reference) ** 2).sum()


def kl(output: Float[Tensor, "*positions vocabulary"], reference: Float[Tensor, "*positions vocabulary"]) -> Float[Tensor, ""]:
    """KL(softmax f_r || softmax f), summed over positions; its gradient is (p - p_r) J, the counterpart of the squared error's."""
    log_p, log_r = torch.log_softmax(output, -1), torch.log_softmax(reference, -1)
    return (log_r.exp() * (log_r - log_p)).sum()


def published_moving_reference(output: Float[Tensor, "*shape"], reference: Float[Tensor, "*shape"]) -> Float[Tensor, ""]:
    """<f, f - f_r>: no divergence, but what the published code differentiates; its gradient is (2 f - f_r) J.

    It arises where the reference is not held fixed as intended. Only to repeat published numbers: what it reconstructs is
    mostly the gradient of ||f||^2, whatever the reference.
    """
    return (output * (output - reference)).sum()


@dataclass(frozen=True)
class NormalisedSquaredError:
    """sum_o (f_o - f_ro)^2 / s_o^2: outputs of a small range count as much as others.

    The source says "normalised" and no more. Ours divides by the variance of each output over the data: a constant, so that
    it stays a squared error in other units, with a gradient that depends on the pair alone.

    Attributes:
        variance: of each output.
    """

    variance: Float[Tensor, " outputs"]

    @staticmethod
    def of(outputs: Float[Tensor, "samples outputs"]) -> NormalisedSquaredError:
        """For these outputs. One that never changes has nothing to be divided by: its errors are left as they are."""
        variance = outputs.var(0)
        return NormalisedSquaredError(torch.where(variance > 0, variance, torch.ones_like(variance)))

    def __call__(self, output: Float[Tensor, " outputs"], reference: Float[Tensor, " outputs"]) -> Float[Tensor, ""]:
        """The divergence of one pair."""
        return ((output - reference) ** 2 / self.variance).sum()


#: by the name that settings use
DIVERGENCES: dict[str, Divergence] = {"squared_error": squared_error, "kl": kl, "published_moving_reference": published_moving_reference}
