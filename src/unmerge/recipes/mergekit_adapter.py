"""The one module that imports mergekit, patches it, and uses what it does not promise to keep.

Every name is looked for when mergekit is first used. Where a version lacks one, the error says which; the bound in ``pyproject.toml`` is the
range of versions that this module was tested with.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, reduce
from importlib.metadata import version
from types import ModuleType
from typing import Any

from unmerge.core.errors import BadInput, need

#: versions from the first, to below the second
TESTED = ((0, 1, 5), (0, 2))
_FIRST = ".".join(map(str, TESTED[0]))
#: what is used, by module; names that begin with an underscore, and class attributes, are mergekit's own business
USED = {
    "mergekit.common": ("ModelReference.parse", "ModelReference.merged"),
    "mergekit.config": ("MergeConfiguration.model_validate", "ConditionalParameter", "evaluate_setting"),
    "mergekit.io.tasks": ("LoaderCache.loaders",),
    "mergekit.merge": ("run_merge", "_model_out_config"),
    "mergekit.merge_methods": ("get",),
    "mergekit.merge_methods.base": ("TensorEntry", "TensorGroup", "TensorMetadata"),
    "mergekit.options": ("MergeOptions",),
}


def mergekit_module(name: str) -> ModuleType:
    """One of mergekit's modules, once all that is used of it is known to be there.

    Args:
        name: a key of USED.

    Raises:
        MissingExtra: mergekit is not installed.
        BadInput: its version is outside of the tested range, or lacks a name that is used.
    """
    module = need(name, "merge")
    _check(name, module)
    return module


@cache
def _check(name: str, module: ModuleType) -> None:
    """Raise BadInput where a module is not what was tested."""
    found = version("mergekit")
    if not is_tested(found):
        first, last = (".".join(map(str, bound)) for bound in TESTED)
        raise BadInput(expected=f"mergekit>={first},<{last}", found=found, where="mergekit", hint="pip install 'unmerge[merge]'")
    if lacking := missing_names(module, USED[name]):
        raise BadInput(
            expected=f"mergekit's {name}.{lacking[0]}", found=f"none in version {found}", where="mergekit", hint=f"pip install mergekit=={_FIRST}"
        )


def is_tested(found: str) -> bool:
    """Whether a version is in the tested range; of a part such as ``5rc1`` the number before the letters counts."""
    digits = ("".join(letter for letter in part if letter.isdecimal() or letter == " ") for part in found.partition("+")[0].split("."))
    numbers = tuple(int(part) for part in digits if part)
    return TESTED[0] <= numbers < TESTED[1]


def missing_names(module: object, names: tuple[str, ...]) -> list[str]:
    """The names, dotted for attributes of classes, that a module does not have."""
    nothing = object()

    def is_there(name: str) -> bool:
        return reduce(lambda holder, part: getattr(holder, part, nothing), name.split("."), module) is not nothing

    return [name for name in names if not is_there(name)]


@contextmanager
def fresh_loaders() -> Iterator[None]:
    """Forget the models that mergekit has opened, before and after: it keeps them by name, even where a folder's content is replaced."""
    loaders = mergekit_module("mergekit.io.tasks").LoaderCache.loaders
    loaders.clear()
    try:
        yield
    finally:
        loaders.clear()


@contextmanager
def types_of_layers() -> Iterator[None]:
    """Give stacked layers their types: transformers 5 wants one for each layer, mergekit 0.1.5 sets their number alone."""
    run: Any = mergekit_module("mergekit.merge")
    plain = run._model_out_config

    def typed(config: Any, *others: Any, **settings: Any) -> Any:
        made = plain(config, *others, **settings)
        types = getattr(made, "layer_types", None)
        if types and config.slices:
            made.layer_types = [types[layer] for part in config.slices for layer in range(*part.sources[0].layer_range)]
        return made

    run._model_out_config = typed
    try:
        yield
    finally:
        run._model_out_config = plain
