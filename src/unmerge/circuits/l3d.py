"""The estimator: one model, in scikit-learn's words."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unmerge.circuits.decompose import Watch, decompose
from unmerge.circuits.divergences import Divergence, squared_error
from unmerge.circuits.landscape import Landscape
from unmerge.circuits.references import REFERENCES, Fixed
from unmerge.circuits.settings import Settings
from unmerge.circuits.subnetworks import Subnetworks
from unmerge.core.errors import BadInput


class L3D:
    """Local loss landscape decomposition of one model; ``decompose`` does the same for many at once.

    Args:
        subnetworks: n_v.
        names: the parameters to decompose; None for all that ask for a gradient.
        divergence: see ``unmerge.circuits.divergences``.
        settings: any field of ``Settings``.

    Attributes:
        components_: the subnetworks, by parameter (n_v, *its shape); all of unit norm over all parameters.
        encoders_: V_in, likewise.
        losses_: of every epoch.
        fitted_: the subnetworks in factors.

    >>> import torch
    >>> model = torch.nn.Linear(3, 2)
    >>> found = L3D(2, epochs=1, batch=4).fit(model, torch.rand(8, 3))
    >>> found.components_["weight"].shape, found.transform(torch.rand(5, 3)).shape
    (torch.Size([2, 2, 3]), torch.Size([5, 2]))
    """

    def __init__(self, subnetworks: int, *, names: Iterable[str] | None = None, divergence: Divergence = squared_error, **settings: Any) -> None:
        self.settings = Settings(subnetworks=subnetworks, **settings)
        self.names = None if names is None else list(names)
        self.divergence = divergence
        self._landscape: Landscape | None = None
        self._fitted: Subnetworks | None = None

    def fit(self, model: nn.Module, x: Tensor, *, checkpoint: Path | None = None, watch: Watch | None = None) -> L3D:
        """Find the subnetworks.

        Args:
            model: takes a batch of one input tensor.
            x: samples, (samples, ...).
            checkpoint: a file to keep the state in; a run that finds its own state there goes on from it.
            watch: told (epochs done, epochs in all).
        """
        self._landscape = Landscape.of(model, self.names, self.divergence)
        self._fitted = decompose(self._landscape, x.unsqueeze(0), self.settings, checkpoint=checkpoint, watch=watch)
        return self

    @property
    def fitted_(self) -> Subnetworks:
        if self._fitted is None:
            raise BadInput(expected="a decomposition that was fitted", found="none", where="L3D", hint="call fit first")
        return self._fitted

    @property
    def components_(self) -> dict[str, Tensor]:
        return {name: tensor.dense()[0] for name, tensor in self.fitted_.decoder.tensors.items()}

    @property
    def encoders_(self) -> dict[str, Tensor]:
        return {name: tensor.dense()[0] for name, tensor in self.fitted_.encoder.tensors.items()}

    @property
    def losses_(self) -> Tensor:
        return self.fitted_.losses[:, 0]

    def transform(self, x: Tensor, reference: Tensor | None = None, seed: int = 0) -> Tensor:
        """V_in g of every sample, (samples, n_v).

        Args:
            x: (samples, ...).
            reference: an output to compare all with; None for another sample each, at random.
            seed: of that choice.
        """
        x, landscape = x.unsqueeze(0), self._model()
        outputs = landscape.outputs(x).unsqueeze(1)
        references = REFERENCES["random"] if reference is None else Fixed(reference)
        chosen = references(outputs, torch.Generator().manual_seed(seed)).squeeze(1)
        return self.fitted_.coefficients(landscape, x, chosen)[0]

    def impact(self, x: Tensor, pairs: int = 8, seed: int = 0) -> Tensor:
        """|V_in g|, the mean over ``pairs`` random references: (samples, n_v)."""
        return self.fitted_.impact(self._model(), x.unsqueeze(0), pairs, seed)[0]

    def intervene(self, x: Tensor, steps: dict[int, float], tensors: Iterable[str] | None = None) -> Tensor:
        """f(x, W_0 + sum_k step_k v_k): outputs with some subnetworks moved, in some parameters alone where ``tensors`` names them."""
        landscape = self._model()
        return landscape.outputs(x.unsqueeze(0), self.fitted_.moved(landscape, steps, tensors))[0]

    def _model(self) -> Landscape:
        _ = self.fitted_
        assert self._landscape is not None
        return self._landscape
