"""Toy models and a block of the zoo's base, on which the method of ``unmerge.circuits`` is measured beside other methods."""

from unmerge_lab.circuits.toys import TOYS, toy_named

__all__ = ["TOYS", "toy_named"]
