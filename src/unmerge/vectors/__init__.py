"""Low-rank algebra: changes of tensors, sources of task vectors, exact inner products."""

from unmerge.vectors.delta import (
    LARGE,
    Delta,
    Dense,
    LowRank,
    Rows,
    Shape,
    Subtracted,
    block_of,
    loaded,
    norm_squared,
    root,
    row_slices,
    singular_values,
    wide,
)
from unmerge.vectors.entries import at, largest
from unmerge.vectors.gram import AllWeights, Gram, Stack, Weights, gram
from unmerge.vectors.restricted import ChangedWeights, MaskedWeights
from unmerge.vectors.scratch import expanded
from unmerge.vectors.source import Held, Skipped, TaskVector, common
from unmerge.vectors.threads import each_tensor, threads

__all__ = [
    "LARGE",
    "AllWeights",
    "ChangedWeights",
    "Delta",
    "Dense",
    "Gram",
    "Held",
    "LowRank",
    "MaskedWeights",
    "Rows",
    "Shape",
    "Skipped",
    "Stack",
    "Subtracted",
    "TaskVector",
    "Weights",
    "at",
    "block_of",
    "common",
    "each_tensor",
    "expanded",
    "gram",
    "largest",
    "loaded",
    "norm_squared",
    "root",
    "row_slices",
    "singular_values",
    "threads",
    "wide",
]
