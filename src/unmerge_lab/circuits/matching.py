"""Subnetworks against the circuits that are known: sign-free, one to one.

What the circuit of a feature *is* has two readings, and both are measured. Feature j of an autoencoder lives in column j of the
encoder and row j of the decoder. As *weights* these are W_enc[:, j] and W_dec[j]. As a *direction* of movement, which is what a
gradient sees, they change places: output j answers W_dec[j] W_enc[:, j] x_j, so what moves it is W_dec[j] in column j of the
encoder, and W_enc[:, j] in row j of the decoder. Where encoder and decoder are each other's transpose the two are one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from unmerge_lab.circuits.toys import DECODER, ENCODER


def feature_directions(encoder: Float[Tensor, "hidden features"], decoder: Float[Tensor, "features hidden"]) -> dict[str, Tensor]:
    """The directions along which each feature's output moves: by tensor, (features, *its shape)."""
    return _placed(decoder, encoder.T)


def feature_weights(encoder: Float[Tensor, "hidden features"], decoder: Float[Tensor, "features hidden"]) -> dict[str, Tensor]:
    """The weights of each feature: by tensor, (features, *its shape)."""
    return _placed(encoder.T, decoder)


def _placed(columns: Float[Tensor, "features hidden"], rows: Float[Tensor, "features hidden"]) -> dict[str, Tensor]:
    eye = torch.eye(len(columns))
    return {ENCODER: columns[:, :, None] * eye[:, None, :], DECODER: eye[:, :, None] * rows[:, None, :]}


@dataclass(frozen=True)
class Match:
    """An assignment of subnetworks to circuits.

    Attributes:
        subnetwork: of each circuit; -1 where there are fewer subnetworks than circuits.
        cosines: |cosine| by tensor and circuit.
    """

    subnetwork: Int[Tensor, " circuits"]
    cosines: dict[str, Float[Tensor, " circuits"]]

    @property
    def least(self) -> Float[Tensor, " circuits"]:
        """Of each circuit, the least cosine over the tensors."""
        return torch.stack(list(self.cosines.values())).min(0).values


def match(found: Mapping[str, Tensor], circuits: Mapping[str, Tensor]) -> Match:
    """Assign subnetworks to circuits so that the sum of least cosines is largest (Hungarian method).

    Args:
        found: subnetworks by tensor, (n_v, ...).
        circuits: circuits by tensor, (circuits, ...).
    """
    cosines = {name: cosine_matrix(found[name], truth).abs() for name, truth in circuits.items()}
    least = torch.stack(list(cosines.values())).min(0).values
    rows, columns = linear_sum_assignment(-least.numpy())
    subnetwork = torch.full((least.shape[1],), -1)
    subnetwork[columns] = torch.tensor(rows)
    matched = {name: torch.zeros(least.shape[1]) for name in cosines}
    for name, matrix in cosines.items():
        matched[name][columns] = matrix[rows, columns]
    return Match(subnetwork, matched)


def cosine_matrix(first: Tensor, second: Tensor) -> Float[Tensor, "n m"]:
    """Cosines between two sets, (n, ...) and (m, ...); 0 for what is zero."""
    one, two = (torch.nn.functional.normalize(part.detach().flatten(1), dim=1) for part in (first, second))
    return one @ two.T


def mmcs(found: Mapping[str, Tensor], circuits: Mapping[str, Tensor]) -> float:
    """Mean max cosine similarity: for each circuit the best |cosine| over all subnetworks, tensors joined; the mean over circuits."""
    joined = [torch.cat([part[name].detach().flatten(1) for name in circuits], 1) for part in (found, circuits)]
    return float(cosine_matrix(*joined).abs().max(0).values.mean())


def r_squared(one: NDArray[np.float64], two: NDArray[np.float64]) -> float:
    """The squared correlation: of directions without a scale or a sign."""
    if one.std() == 0 or two.std() == 0:
        return 0.0
    return float(np.corrcoef(one, two)[0, 1] ** 2)
