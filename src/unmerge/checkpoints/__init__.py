"""Models and adapters on disk as task vectors: lazy, tensor by tensor, never two models in memory."""

from unmerge.checkpoints.adapter import Adapter
from unmerge.checkpoints.checkpoint import Checkpoint
from unmerge.checkpoints.difference import Difference
from unmerge.checkpoints.in_memory import checkpoint_in_memory

__all__ = ["Adapter", "Checkpoint", "Difference", "checkpoint_in_memory"]
