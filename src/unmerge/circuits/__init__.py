"""Circuits from the loss landscape: subnetworks, low-rank in every tensor, that explain a model's gradients a few at a time."""

from unmerge.circuits.decompose import decompose
from unmerge.circuits.directions import Directions
from unmerge.circuits.l3d import L3D
from unmerge.circuits.landscape import Landscape
from unmerge.circuits.settings import Settings
from unmerge.circuits.subnetworks import Subnetworks

__all__ = ["L3D", "Directions", "Landscape", "Settings", "Subnetworks", "decompose"]
