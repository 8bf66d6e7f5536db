"""What is in a target, how it was merged, and all of it in one folder."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import yaml

from unmerge.api.inputs import BaseLike, DictionaryLike, Place, TargetLike, opened, with_base
from unmerge.api.removal import ablate_found
from unmerge.auditing import Audit, Request, Watches, parse_gates, run_audit
from unmerge.core.errors import BadInput
from unmerge.core.progress import Progress, Silent
from unmerge.core.records import write_json, write_text
from unmerge.core.settings import settings
from unmerge.core.staging import staged
from unmerge.decomposition import Decomposition
from unmerge.decomposition.dictionary import refuse_memory
from unmerge.decomposition.run import DEFAULT_METHOD, DEFAULT_SPACE
from unmerge.decomposition.run import decompose as run
from unmerge.recipes.record import RecoveredRecipe
from unmerge.recipes.recover import recovered
from unmerge.report.audit import write_audit
from unmerge.verification import read_tasks


def decompose(
    target: TargetLike,
    dictionary: DictionaryLike,
    base: BaseLike | None = None,
    *,
    method: str = DEFAULT_METHOD,
    space: str = DEFAULT_SPACE,
    modules: str | None = None,
    device: str | None = None,
    cache: Path | str | None = None,
    progress: Progress | None = None,
) -> Decomposition:
    """Name the adapters in a target, with their coefficients.

    Args:
        target: a folder, a name on the hub, or what ``task_vector`` gives.
        dictionary: the known adapters: one or more folders, or a ``Dictionary``.
        base: the model that the target was made from. An adapter among plain LoRA adapters needs none.
        method: ``certificate``, or the name of a solver, as ``unmerge decompose --method`` has them.
        space: the weights that the method looks at: ``exact`` (all), ``layer``, ``nonzero`` or ``compressed``.
        modules: a regular expression; tensors in whose names it is not found are left out.
        device: where large tensors are worked on. Default: UNMERGE_DEVICE, or else a graphics card where there is one.
        cache: the folder that products of the dictionary are kept in. Default: UNMERGE_CACHE, or else none.
        progress: is told how far the work is.

    Returns:
        Components with coefficients, atoms that are absent, and what is unexplained.

    Raises:
        BadInput: an input cannot be read, does not fit the others, or an option is unknown.
    """
    with settings(device, cache):
        vector, atoms, model = opened(target, dictionary, base, modules)
        result = run(vector, atoms, model, method, (progress or Silent()).over("inner products"), space)
    return result.for_ablation(partial(ablate_found, vector, atoms))


def recover(
    target: TargetLike,
    dictionary: DictionaryLike,
    base: BaseLike,
    *,
    out: Place | None = None,
    masks: Place | None = None,
    device: str | None = None,
    cache: Path | str | None = None,
    progress: Progress | None = None,
) -> RecoveredRecipe:
    """Find the mergekit configuration that makes a target, and prove it by running it.

    Args:
        target: as for ``decompose``; on disk, as the others.
        dictionary: as for ``decompose``.
        base: the model that the target was made from.
        out: the configuration's file to write, with its record as ``.json`` beside it. Default: nothing is written.
        masks: a safetensors file to write random masks to, where they could be read.
        device: as for ``decompose``.
        cache: as for ``decompose``.
        progress: is told how far the work is.

    Returns:
        The recipe, or the part of it that is known, with the share of identical weights.

    Raises:
        BadInput: an input cannot be read, is in memory, or does not fit the others.
        MissingExtra: mergekit is not installed.
    """
    with settings(device, cache):
        vector, atoms, model = with_base(target, dictionary, base)
        record = recovered(vector, atoms, model, (progress or Silent()).over("recovering"), None if masks is None else Path(masks))
    if out is not None:
        if record.configuration is not None:
            write_text(Path(out), yaml.safe_dump(record.configuration, sort_keys=False))
        write_json(Path(out).with_suffix(".json"), record)
    return record


def audit(
    target: TargetLike,
    dictionary: DictionaryLike,
    base: BaseLike | None = None,
    *,
    out: Place,
    tasks: Place | None = None,
    limit: int | None = None,
    fail_on: Sequence[str] = (),
    device: str | None = None,
    cache: Path | str | None = None,
    progress: Progress | None = None,
) -> Audit:
    """Decompose, recover, read licences and, where tasks are given, verify; write a page, a record and a bill of materials.

    Args:
        target: as for ``decompose``; on disk, as the others.
        dictionary: as for ``decompose``.
        base: as for ``decompose``. Without one no recipe is looked for and nothing is measured.
        out: the folder to make.
        tasks: as for ``verify``; nothing is measured without.
        limit: items of each task at most.
        fail_on: conditions under which the audit fails, as ``unmerge audit --fail-on`` has them.
        device: as for ``decompose``.
        cache: as for ``decompose``.
        progress: is told how far the work is.

    Returns:
        The record. Its ``gates`` say which conditions failed.

    Raises:
        BadInput: an input cannot be read, is in memory, or does not fit the others.
        BadOutput: the folder exists, or cannot be written.
        MissingExtra: an extra that the page needs is not installed.
    """
    told = progress or Silent()
    with settings(device, cache):
        vector, atoms, model = opened(target, dictionary, base)
        refuse_memory("audit", model, [vector, *atoms.atoms])
        if tasks is not None and model is None:
            raise BadInput(expected="a base to measure on", found="none", where="tasks", hint="give the base, or leave the tasks out")
        listed = None if tasks is None else read_tasks(Path(tasks), atoms)
        sources = [vector.source(), *([model.source()] if model else []), *(atom.source() for atom in atoms.atoms)]
        job = {"audit": [source.model_dump(mode="json") for source in sources], "tasks": str(listed), "limit": limit}
        gates = parse_gates(list(fail_on), list(atoms.names))
        with staged(Path(out), job) as stage:
            done = run_audit(Request(vector, atoms, model, listed, limit, gates), stage, Watches(told.over, told.steps))
            write_audit(done, stage.folder)
    return done
