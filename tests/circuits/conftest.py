"""Small models of every kind, and a decomposition of one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from unmerge.circuits.decompose import decompose
from unmerge.circuits.landscape import Landscape
from unmerge.circuits.settings import Settings
from unmerge.circuits.subnetworks import Subnetworks
from unmerge_lab.circuits.toys import Autoencoder

SETTINGS = Settings(subnetworks=4, epochs=6, batch=16, chunk=32)


@pytest.fixture(scope="session")
def landscape() -> Landscape:
    """Two autoencoders 5-2-5."""
    torch.manual_seed(0)
    return Landscape.of([Autoencoder(5, 2), Autoencoder(5, 2)])


@pytest.fixture(scope="session")
def x() -> Tensor:
    """64 inputs of each."""
    return torch.rand(2, 64, 5, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="session")
def found(landscape: Landscape, x: Tensor) -> Subnetworks:
    """Their subnetworks, after six epochs."""
    return decompose(landscape, x, SETTINGS)
