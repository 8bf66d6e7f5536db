"""Taking components out of a target, and measuring what that does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from unmerge.api.inputs import BaseLike, DictionaryLike, Place, TargetLike, opened, with_base
from unmerge.core.errors import BadInput
from unmerge.core.progress import Progress, Silent
from unmerge.core.settings import settings
from unmerge.decomposition import Decomposition, Dictionary, acting, decompose
from unmerge.decomposition.ablation_record import AblationRecord
from unmerge.decomposition.dictionary import Vector
from unmerge.decomposition.run import DEFAULT_METHOD
from unmerge.verification import Request, Verification, coefficients, read_tasks
from unmerge.verification.ablate import ablate as write_ablated
from unmerge.verification.run import verify as measure

#: a component's name, several of them, or names with coefficients (None: the one that is found)
Removal: TypeAlias = str | Sequence[str] | Mapping[str, float | None]


def ablate(
    target: TargetLike,
    dictionary: DictionaryLike,
    base: BaseLike | None = None,
    *,
    remove: Removal,
    out: Place,
    method: str = DEFAULT_METHOD,
    as_adapter: bool = False,
    device: str | None = None,
    cache: Path | str | None = None,
    progress: Progress | None = None,
) -> AblationRecord:
    """Subtract components from a target, and write what is left.

    Args:
        target: as for ``decompose``.
        dictionary: as for ``decompose``; it has the components.
        base: as for ``decompose``.
        remove: the name of a component, several names, or a mapping from names to coefficients. A coefficient that is not given, or None,
            is the one that the decomposition finds.
        out: the folder to make. A checkpoint and an adapter stay what they are; a state dict becomes ``model.safetensors``.
        method: as for ``decompose``.
        as_adapter: write an adapter that does the subtraction when it is loaded on the target.
        device: as for ``decompose``.
        cache: as for ``decompose``.
        progress: is told how far the work is.

    Returns:
        The record, with what of the components stays in the target.

    Raises:
        BadInput: a component that the dictionary does not have or the decomposition does not find, or a target that cannot be written.
        BadOutput: the folder exists, or cannot be written.
    """
    told, asked = progress or Silent(), asked_for(remove)
    if not asked:
        raise BadInput(expected="a component to remove", found="none", where="remove", hint="name one")
    with settings(device, cache):
        vector, atoms, model = opened(target, dictionary, base)
        removed, _ = coefficients(vector, atoms, model, asked, method, told.over("inner products"))
        return write_ablated(vector, removed, Path(out), as_adapter=as_adapter, watch=told.over("subtracting"))


def verify(
    target: TargetLike,
    dictionary: DictionaryLike,
    base: BaseLike,
    *,
    tasks: Place | None = None,
    remove: Removal = (),
    method: str = DEFAULT_METHOD,
    harness: bool = False,
    limit: int | None = None,
    seed: int = 0,
    items: Place | None = None,
    device: str | None = None,
    cache: Path | str | None = None,
    progress: Progress | None = None,
) -> Verification:
    """Take out one component after the other, and measure whether its skill is gone and the others stay.

    Args:
        target: as for ``decompose``; on disk, as the base.
        dictionary: as for ``decompose``.
        base: the model that the target was made from.
        tasks: a file or a folder that says which tasks belong to which atom. Default: what the adapters' own records name.
        remove: as for ``ablate``. Default: every component that is found.
        method: as for ``decompose``.
        harness: score with lm-evaluation-harness also the tasks that could be scored by exact match.
        limit: items of each task at most.
        seed: of the controls.
        items: a file for the results of every item, from which an interrupted run goes on. Default: they are not kept.
        device: where large tensors are worked on, as for ``decompose``. The model itself runs where transformers puts it.
        cache: as for ``decompose``.
        progress: is told how far the work is.

    Returns:
        For each component the skill before and after, the change of every other task, controls and a verdict.

    Raises:
        BadInput: an input cannot be read, does not fit the others, or no component has a task.
        MissingExtra: transformers, or the harness where it is needed, is not installed.
    """
    told = progress or Silent()
    with settings(device, cache):
        vector, atoms, model = with_base(target, dictionary, base)
        listed = read_tasks(None if tasks is None else Path(tasks), atoms)
        suite = listed.suite(harness=harness, limit=limit)
        found = decompose(vector, atoms, model, method, told.over("inner products"))
        request = Request(vector, model, atoms, found, listed, asked_for(remove), seed)
        return measure(request, suite, None if items is None else Path(items), watch=told.steps("measuring"))


def ablate_found(target: Vector, dictionary: Dictionary, result: Decomposition, names: Sequence[str], out: Path, as_adapter: bool) -> AblationRecord:
    """Subtract components from the target of a decomposition, each as it acted, and write what is left."""
    found = {component.name: component for component in result.components}
    removed = [(acting(dictionary.named(name), found[name]), found[name].coefficient) for name in names]
    return write_ablated(target, removed, out, as_adapter=as_adapter)


def asked_for(remove: Removal) -> dict[str, float | None]:
    """The coefficient of each component that is to be removed, None where it is to be found."""
    if isinstance(remove, str):
        return {remove: None}
    return dict(remove) if isinstance(remove, Mapping) else dict.fromkeys(remove)
