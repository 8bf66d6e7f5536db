"""Tell what is inside a fine-tuned or merged language model, and prove it.

    import unmerge

    result = unmerge.decompose("merged", "adapters", "Qwen/Qwen2.5-7B-Instruct")
    for component in result.components:
        print(component.name, component.coefficient)

The public names are those of ``__init__.pyi``, where type checkers and editors find them. They are loaded when they are first used, so that
``import unmerge`` loads no other library.
"""

from __future__ import annotations

import importlib
import re
from pathlib import Path

#: the public names, and the module that each is defined in, from the stub
_HOMES = {
    name: home
    for home, name in re.findall(r"^from (\S+) import (\w+) as \2$", Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8"), re.MULTILINE)
}

__all__ = ["__version__", *_HOMES]  # noqa: PLE0604, the names are the table's keys


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version

        found: object = version("unmerge")
    elif name in _HOMES:
        found = getattr(importlib.import_module(_HOMES[name]), name)
    else:
        raise AttributeError(f"module 'unmerge' has no attribute {name!r}")
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*__all__, *globals()})
