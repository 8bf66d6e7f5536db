"""Tell what is inside a fine-tuned or merged language model, and prove it.

    import unmerge

    base = unmerge.open_base(Path("Qwen2.5-7B-Instruct"))
    dictionary = unmerge.open_dictionary([Path("adapters")], base)
    target = unmerge.open_vector(Path("merged"), base)
    result = unmerge.decompose(target, dictionary, base)
    for component in result.components:
        print(component.name, component.coefficient)

Names are loaded when they are first used.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from typing import Any

__version__ = importlib.metadata.version("unmerge")

#: the public names, and the room that each lives in
_ROOMS = {
    "Adapter": "unmerge.checkpoints",
    "Checkpoint": "unmerge.checkpoints",
    "Difference": "unmerge.checkpoints",
    "Decomposition": "unmerge.decomposition",
    "Dictionary": "unmerge.decomposition",
    "UnmergeError": "unmerge.core.errors",
    "ablate": "unmerge.verification",
    "decompose": "unmerge.decomposition",
    "embedded_zoo": "unmerge.zoo",
    "exact_match": "unmerge.evaluation",
    "merge": "unmerge.recipes",
    "open_base": "unmerge.decomposition",
    "open_dictionary": "unmerge.decomposition",
    "open_vector": "unmerge.decomposition",
    "train_adapters": "unmerge.training",
}

__all__ = ["__version__", *_ROOMS]  # noqa: PLE0604, the names are the table's keys


def __getattr__(name: str) -> Any:
    if name not in _ROOMS:
        raise AttributeError(f"module 'unmerge' has no attribute {name!r}")
    return getattr(importlib.import_module(_ROOMS[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
