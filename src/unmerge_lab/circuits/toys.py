"""Toy models whose circuits are known.

Inputs are sparse: a feature, or a group of features together, is active with a probability of .05, and inputs that are all
zero are dropped. ``tms`` is the toy model of superposition of Elhage et al. 2022 with a decoder of its own; the others are those
of L3D's paper and its draft.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import inf

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unmerge.core.errors import unknown_name

#: probability of a feature, or of a group, to be active
ACTIVE = 0.05
#: steps after which X -> X^2 of 10 inputs answers to some of them
EARLY = 350
ENCODER, DECODER, BIAS = "encoder.weight", "decoder.weight", "decoder.bias"


class Autoencoder(nn.Module):
    """ReLU(W_dec W_enc x + b), the decoder's start being the encoder's transpose.

    Started apart, most models of five features in two dimensions leave some out: their ReLUs are dead from the beginning.
    Biases start at ``bias``: above zero, the outputs of groups that start with a negative sum are alive too.
    """

    def __init__(self, inputs: int, hidden: int, bias: float = 0.0) -> None:
        super().__init__()
        self.encoder = nn.Linear(inputs, hidden, bias=False)
        self.decoder = nn.Linear(hidden, inputs)
        with torch.no_grad():
            self.encoder.weight.normal_(0, hidden**-0.5)
            self.decoder.weight.copy_(self.encoder.weight.T)
            self.decoder.bias.fill_(bias)

    def forward(self, x: Tensor) -> Tensor:
        """(samples, inputs) to (samples, inputs)."""
        result: Tensor = torch.relu(self.decoder(self.encoder(x)))
        return result


class Perceptron(nn.Sequential):
    """Hidden layers of equal width with GELU between them."""

    def __init__(self, inputs: int, width: int, layers: int) -> None:
        sizes = [inputs, *[width] * layers]
        hidden = [part for before, after in itertools.pairwise(sizes) for part in (nn.Linear(before, after), nn.GELU())]
        super().__init__(*hidden, nn.Linear(width, inputs))


def identity(x: Tensor, _: torch.Generator) -> Tensor:
    """X -> X."""
    return x


def square(x: Tensor, _: torch.Generator) -> Tensor:
    """X -> X^2."""
    return x**2


def mixture(x: Tensor, generator: torch.Generator) -> Tensor:
    """X -> A X with A drawn from U(0, 3)."""
    return x @ mixing_matrix(x.shape[-1], generator).T


def mixing_matrix(inputs: int, generator: torch.Generator) -> Float[Tensor, "outputs inputs"]:
    """The A of ``mixture``: what a generator with the seed of the run gives first."""
    return 3 * torch.rand(inputs, inputs, generator=generator)


@dataclass(frozen=True)
class Toy:
    """A toy model.

    Attributes:
        title: for people.
        inputs: features.
        model: makes an untrained one.
        target: (inputs, generator of the run) to what the model is to answer.
        low: least value of an active feature; the largest is 1.
        group: features that are on and off together.
        shared: whether the features of a group have one value, instead of one each.
        copies: models side by side, block-diagonal, each of ``inputs`` / ``copies`` features.
        steps: of training.
        learning_rate: of training.
        tied: whether the decoder is held at the encoder's transpose during training, as in Elhage et al.
        price: of the sum of biases, added to the loss: outputs that are to be zero are then off, and not zero but for noise.
        least: a feature is represented when its own output answers at least this to an input of 1 (of its whole group); 0 where
            that is no criterion.
        most: a model counts as trained when its squared error is at most this share of the target's mean square.
        mixes: whether every input acts on every output.
    """

    title: str
    inputs: int
    model: Callable[[], nn.Module]
    target: Callable[[Tensor, torch.Generator], Tensor]
    low: float = 0.0
    group: int = 1
    shared: bool = False
    copies: int = 1
    steps: int = 6000
    learning_rate: float = 1e-3
    tied: bool = False
    price: float = 0.0
    least: float = 0.0
    most: float = inf
    mixes: bool = False

    def empty(self) -> nn.Module:
        """A model of the right shape, its copies joined, with no trained weights."""
        if self.copies == 1:
            return self.model()
        hidden = self.model().get_parameter(ENCODER).shape[0]
        return Autoencoder(self.inputs, hidden * self.copies)

    def sample(self, count: int, seed: int) -> Float[Tensor, "count inputs"]:
        """Inputs, none of them all zero."""
        generator = torch.Generator().manual_seed(seed)
        groups = self.inputs // self.group
        # of all draws this share is kept; a fifth more of them, and some, are enough
        draws = int(1.2 * count / (1 - (1 - ACTIVE) ** groups)) + 64
        on = (torch.rand(draws, groups, generator=generator) < ACTIVE).repeat_interleave(self.group, 1)
        values = torch.rand(draws, groups if self.shared else self.inputs, generator=generator)
        values = values.repeat_interleave(self.group, 1) if self.shared else values
        x = on * (self.low + (1 - self.low) * values)
        return x[on.any(1)][:count]


_TMS = Toy("TMS 5-2-5", 5, lambda: Autoencoder(5, 2), identity, steps=3000, learning_rate=1e-2, tied=True, price=0.01, least=0.8)
_GROUPS = Toy(
    "high-rank circuits, 25-10-25 in groups of 5",
    25,
    lambda: Autoencoder(25, 10, bias=0.3),
    identity,
    group=5,
    steps=3000,
    learning_rate=5e-3,
    price=0.005,
    least=0.8,
)
_SQUARE = Toy("X -> X^2, 10 inputs", 10, lambda: Perceptron(10, 10, 4), square, low=-1.0, steps=20_000, learning_rate=5e-3, most=0.1)
_SQUARE_5 = replace(_SQUARE, title="X -> X^2, 5 inputs", inputs=5, model=lambda: Perceptron(5, 5, 4))

#: by the name that the command line uses
TOYS = {
    "tms": _TMS,
    "parallel": replace(_TMS, title="three TMS in parallel, 15-6-15", inputs=15, copies=3),
    "tmcs": Toy("TMCS 10-5-10, X -> AX", 10, lambda: Autoencoder(10, 5), mixture, mixes=True),
    "high-rank": _GROUPS,
    "high-rank-shared": replace(_GROUPS, title="the same, one value a group", shared=True),
    "square": _SQUARE,
    "square-5": _SQUARE_5,
    "square-early": replace(_SQUARE, title="X -> X^2, 10 inputs, hardly trained", steps=EARLY, most=inf),
    "square-5-early": replace(_SQUARE_5, title="X -> X^2, 5 inputs, hardly trained", steps=2 * EARLY, most=inf),
}


def toy_named(name: str) -> Toy:
    """A toy model by its name."""
    if name not in TOYS:
        raise unknown_name(name, TOYS, "the toy model")
    return TOYS[name]
