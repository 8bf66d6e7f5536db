"""Tables and figures, made from records alone. What is named here is loaded when it is asked for: most of it brings model libraries."""

from __future__ import annotations

import importlib
from typing import Any

#: the public names, and the file that each lives in
_FILES = {
    "plot_matrix": "matrix",
    "show_adapters": "table",
    "show_decomposition": "decomposition_table",
    "show_matrix": "table",
}

__all__ = [*_FILES]  # noqa: PLE0604, the names are the table's keys


def __getattr__(name: str) -> Any:
    if name not in _FILES:
        raise AttributeError(f"module 'unmerge.report' has no attribute {name!r}")
    return getattr(importlib.import_module(f"unmerge.report.{_FILES[name]}"), name)
