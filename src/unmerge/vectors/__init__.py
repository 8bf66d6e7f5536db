"""Low-rank algebra: changes of tensors, sources of task vectors, exact inner products."""

from unmerge.vectors.delta import Delta, Dense, LowRank, Shape, norm_squared, singular_values
from unmerge.vectors.gram import Gram, Stack, gram
from unmerge.vectors.source import Held, Skipped, TaskVector

__all__ = ["Delta", "Dense", "Gram", "Held", "LowRank", "Shape", "Skipped", "Stack", "TaskVector", "gram", "norm_squared", "singular_values"]
