"""Subtraction, and what it does: ``ablate`` writes it, ``verify`` measures it."""

from unmerge.verification.ablate import ablate, coefficients
from unmerge.verification.matrix import AblationMatrix, Row
from unmerge.verification.record import Verification
from unmerge.verification.run import Request, verify
from unmerge.verification.tasks import read_tasks

__all__ = ["AblationMatrix", "Request", "Row", "Verification", "ablate", "coefficients", "read_tasks", "verify"]
