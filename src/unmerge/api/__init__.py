"""The functions that ``import unmerge`` gives: each opens what it is given, and does one thing.

``target`` is a folder, a name on the hub, or a task vector that is open already; ``dictionary`` is one or more folders, or a ``Dictionary``;
``base`` is a folder, a name on the hub, a state dict, or an open model. Everything after these is a keyword, and means the same everywhere:
``out``, ``tasks``, ``method``, ``modules``, ``limit``, ``seed``, ``device``, ``cache``, ``progress``.
"""

from unmerge.api.analysis import audit, decompose, recover
from unmerge.api.creation import merge, train
from unmerge.api.inputs import BaseLike, DictionaryLike, TargetLike, open_model, task_vector
from unmerge.api.removal import ablate, verify

__all__ = [
    "BaseLike",
    "DictionaryLike",
    "TargetLike",
    "ablate",
    "audit",
    "decompose",
    "merge",
    "open_model",
    "recover",
    "task_vector",
    "train",
    "verify",
]
