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
    is_large,
    norm_squared,
    root,
    row_slices,
    singular_values,
    wide,
)
from unmerge.vectors.device import chosen_device, device_for, placed
from unmerge.vectors.entries import at, largest
from unmerge.vectors.gram import AllWeights, Gram, Stack, Weights, gram
from unmerge.vectors.restricted import ChangedWeights, MaskedWeights
from unmerge.vectors.scratch import in_scratch
from unmerge.vectors.source import Held, Skipped, TaskVector, common, digest, first_rows
from unmerge.vectors.tensor_names import OUTSIDE, kind_of, layer_of
from unmerge.vectors.threads import each_tensor, torch_threads

__all__ = [
    "LARGE",
    "OUTSIDE",
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
    "chosen_device",
    "common",
    "device_for",
    "digest",
    "each_tensor",
    "first_rows",
    "gram",
    "in_scratch",
    "is_large",
    "kind_of",
    "largest",
    "layer_of",
    "norm_squared",
    "placed",
    "root",
    "row_slices",
    "singular_values",
    "torch_threads",
    "wide",
]
