"""Low-rank algebra: changes of tensors, sources of task vectors, exact inner products."""

from unmerge.vectors.delta import Delta, Dense, LowRank, Shape, norm_squared, singular_values
from unmerge.vectors.entries import at, largest
from unmerge.vectors.gram import Gram, Stack, Weights, gram
from unmerge.vectors.restricted import ChangedWeights, MaskedWeights
from unmerge.vectors.source import Held, Skipped, TaskVector, common

__all__ = [
    "ChangedWeights",
    "Delta",
    "Dense",
    "Gram",
    "Held",
    "LowRank",
    "MaskedWeights",
    "Shape",
    "Skipped",
    "Stack",
    "TaskVector",
    "Weights",
    "at",
    "common",
    "gram",
    "largest",
    "norm_squared",
    "singular_values",
]
