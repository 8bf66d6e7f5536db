"""A checkpoint that computes with the same weights as its base, arranged otherwise: found out, and undone as a view."""

from unmerge.checkpoints.alignment.align import aligned
from unmerge.checkpoints.alignment.aligned_checkpoint import AlignedCheckpoint, Operation
from unmerge.checkpoints.alignment.scales import RESCALED
from unmerge.checkpoints.alignment.stored_change import StoredChange

__all__ = ["RESCALED", "AlignedCheckpoint", "Operation", "StoredChange", "aligned"]
