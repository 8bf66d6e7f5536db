"""Subtraction, and what it does: ``ablate`` writes it, ``verify`` measures it."""

from unmerge.verify.ablate import ablate, coefficients
from unmerge.verify.matrix import AblationMatrix, Row
from unmerge.verify.record import Verification
from unmerge.verify.run import Request, verify
from unmerge.verify.tasks import read_tasks

__all__ = ["AblationMatrix", "Request", "Row", "Verification", "ablate", "coefficients", "read_tasks", "verify"]
