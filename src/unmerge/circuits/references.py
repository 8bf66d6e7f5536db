"""What a sample is compared with: the output of another one.

Each function takes the outputs of whole batches, (runs, batches, batch, ...), and gives the reference of every sample.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

#: (outputs, generator) to references of the same shape
References = Callable[[Tensor, torch.Generator], Tensor]


def random_in_batch(outputs: Float[Tensor, "runs batches batch *shape"], generator: torch.Generator) -> Float[Tensor, "runs batches batch *shape"]:
    """Another sample of the same batch: batches are in random order, so a shift by a random number of places is a random partner."""
    batch = outputs.shape[2]
    return outputs.roll(int(torch.randint(1, max(batch, 2), (), generator=generator)), 2)


def mean_of_batch(outputs: Float[Tensor, "runs batches batch *shape"], _: torch.Generator) -> Float[Tensor, "runs batches batch *shape"]:
    """The mean output of the batch (of logits, where outputs are logits)."""
    return outputs.mean(2, keepdim=True).expand_as(outputs)


@dataclass(frozen=True)
class Fixed:
    """One output for all, for instance that of an input of zeros.

    Attributes:
        output: of one sample.
    """

    output: Float[Tensor, "*shape"]

    def __call__(self, outputs: Float[Tensor, "runs batches batch *shape"], generator: torch.Generator) -> Float[Tensor, "runs batches batch *shape"]:
        """The output, for every sample."""
        return self.output.to(outputs).expand_as(outputs)


#: by the name that settings use
REFERENCES: dict[str, References] = {"random": random_in_batch, "mean": mean_of_batch}
