"""Subtraction, and what it does."""

from unmerge.verify.ablate import ablate, coefficients
from unmerge.verify.matrix import AblationMatrix, Row

__all__ = ["AblationMatrix", "Row", "ablate", "coefficients"]
