"""Circuits from the loss landscape: subnetworks, low-rank in every tensor, that explain a model's gradients a few at a time."""
