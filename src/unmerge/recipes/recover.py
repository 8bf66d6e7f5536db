"""From a target back to the configuration that makes it.

The certificate says which atoms are in the target. Each method's file turns what that method leaves behind into a recipe;
the recipe is run, a few tensors first, and compared weight by weight. The best one is run once more by mergekit itself, from
cold caches: the share of identical weights is the proof. Masks drawn at random cannot be drawn again; they are read off, and
the share of weights that one of the sums explains stands beside the same share for decoys. Where something unknown was merged
as well, the known part is given with its parameters, and what is left beside what rounding would leave.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from unmerge.checkpoints import Adapter, Checkpoint, Difference
from unmerge.core.errors import BadInput
from unmerge.core.records import environment, write_json, write_text
from unmerge.decomposition import Decomposition, Dictionary, decompose, products_of
from unmerge.decomposition.alignment import aligned_with
from unmerge.decomposition.dictionary import Vector, refuse_memory
from unmerge.decomposition.result import SkippedTensor
from unmerge.recipes.acting import acted, is_scale_free
from unmerge.recipes.adapter_part import adapter_part
from unmerge.recipes.case import Case
from unmerge.recipes.chance.decoys import decoys
from unmerge.recipes.chance.drawn import write_masks
from unmerge.recipes.combinations import has_pair, recover_adapter
from unmerge.recipes.inputs import Inputs
from unmerge.recipes.layers import Stack, stacked
from unmerge.recipes.nature import nature
from unmerge.recipes.part import known_part
from unmerge.recipes.proof import prove
from unmerge.recipes.recipe import named, parameters_of
from unmerge.recipes.record import Proof, RecoveredRecipe, Rival, Unknown
from unmerge.recipes.says import says
from unmerge.recipes.search import Candidate, search
from unmerge.recipes.shortlist import clearness, sets
from unmerge.vectors import Held

FOUND, PART, UNCHANGED, FINE_TUNE, NONE = "recipe", "part of a recipe", "base", "fine-tune", "none of these"

Watch = Callable[[Iterable[str]], Iterable[str]]


def recover(target: Vector, dictionary: Dictionary, base: Checkpoint, out: Path, watch: Watch = iter, masks: Path | None = None) -> RecoveredRecipe:
    """Recover the recipe of a target, write it and its record.

    ``out`` is ``RECIPE.yml``, written where a mergekit configuration makes the target; the record is written beside it, as ``RECIPE.json``.
    The rest is as for ``recovered``.
    """
    record = recovered(target, dictionary, base, watch, masks)
    if record.configuration is not None:
        write_text(out, yaml.safe_dump(record.configuration, sort_keys=False))
    write_json(out.with_suffix(".json"), record)
    return record


def recovered(target: Vector, dictionary: Dictionary, base: Checkpoint, watch: Watch = iter, masks: Path | None = None) -> RecoveredRecipe:
    """Recover the recipe of a target.

    Args:
        target: a checkpoint minus the base, or an adapter.
        dictionary: the atoms.
        base: the base model.
        watch: wraps loops over tensors, for a progress bar.
        masks: a safetensors file for random masks that were read off, "atom/tensor"; not written where there are none.

    Returns:
        The record.

    Raises:
        BadInput: the target, the base or an atom is in memory; or the target's weights lie as no merge leaves them.
    """
    started = time.monotonic()
    refuse_memory("recover", base, [target, *dictionary.atoms])
    target, dictionary = aligned_with(target, dictionary)
    assert not isinstance(target, Held)  # refused
    if isinstance(target, Adapter):
        answer = _of_adapter(target, dictionary, base, watch)
    else:
        target = _as_stored(target)
        with tempfile.TemporaryDirectory(prefix="unmerge-") as scratch:
            answer = _of_checkpoint(target, Inputs(base, dictionary, Path(scratch)), watch, masks)
    return RecoveredRecipe(
        **answer,
        says=says(answer, target.name),
        target=target.source(),
        base=base.source(),
        dictionary={atom.name: atom.source() for atom in dictionary.atoms},
        seconds=round(time.monotonic() - started, 3),
        environment=environment(),
    )


def _as_stored(target: Difference) -> Difference:
    """The target as mergekit would have to make it.

    Raises:
        BadInput: something was done to its weights that mergekit does not do.
    """
    if target.alignment is None:
        return target
    if not target.alignment.has_moved_layers_only:
        raise BadInput(
            expected="weights that lie as the base's do, as mergekit leaves them",
            found=target.alignment.summary,
            where=target.tuned.folder,
            hint="unmerge decompose undoes this and names the components; no mergekit configuration makes the target",
        )
    return replace(target, tuned=target.alignment.stored)


def _of_adapter(target: Adapter, dictionary: Dictionary, base: Checkpoint, watch: Watch) -> dict[str, Any]:
    """An adapter's recipe is a call of PEFT, which the record holds; there is no configuration. Beside something unknown it is a part of one."""
    looked: list[str] = []
    found = recover_adapter(target, [atom for atom in dictionary.atoms if isinstance(atom, Adapter)], looked, watch)
    if found is None:
        looked.append("the known part")
        part = adapter_part(target, dictionary, base)
        answer: dict[str, Any] = {"answer": PART if "method" in part else NONE, **part}
    else:
        answer = {"answer": FOUND, "method": found.method, "parameters": found.parameters, "call": found.call, "proof": found.proof}
        answer["identical_share"] = found.proof.identical_share
    left_out = [SkippedTensor(tensor=tensor, reason="not a product of two factors") for tensor in target.shapes if not has_pair(target, tensor)]
    skipped = [*(SkippedTensor(tensor=skip.tensor, reason=skip.reason) for skip in target.skipped), *left_out]
    return {**answer, "looked": looked, "skipped": skipped}


def _of_checkpoint(target: Difference, inputs: Inputs, watch: Watch, masks: Path | None) -> dict[str, Any]:
    stack = stacked(target.tuned, inputs)
    if stack is not None and (stack.recipe.atoms or stack.recipe.slices):
        return _stack(target, inputs, stack)
    products = products_of(target, inputs.dictionary, watch)
    if untrained := [name for name, norms in zip(products.atoms, products.gram.sum(0).diagonal(), strict=True) if norms == 0]:
        inputs, products = replace(inputs, dictionary=inputs.dictionary.without(untrained)), products.without(untrained)
    skipped = [SkippedTensor(tensor=skip.tensor, reason=skip.reason) for skip in products.skipped]
    changed = [tensor for tensor, norm in zip(products.tensors, products.norm_squared, strict=True) if norm > 0]
    if not changed:
        return {"answer": UNCHANGED, "identical_share": 1.0, "skipped": skipped}
    touched = [tensor for row, tensor in enumerate(products.tensors) if products.gram[row].any() or tensor in changed]
    contents = decompose(target, inputs.dictionary, inputs.base, watch=watch, products=products)
    names = tuple(sorted(component.name for component in contents.components))
    # a swap of entries (arcee_fusion, nearswap) leaves little of one atom's subspaces, and a clear correlation
    tried = list(dict.fromkeys([*([names] if names else []), *sets(clearness(products))]))
    masked = [names] if names and contents.unexplained.components else tried
    case, looked = Case.of(inputs, target.tuned, touched), list[str]()
    found = search(case, touched, tried, masked, looked)
    answer = _recipe(found) if found else _rest(case, target, contents, changed, looked)
    if found and found[0].drawn is not None and masks is not None:
        write_masks(found[0].case, found[0].drawn, masks)
    return {**answer, "looked": looked, "skipped": skipped}


def _stack(target: Difference, inputs: Inputs, stack: Stack) -> dict[str, Any]:
    """Every tensor of the target is one of a model's: nothing is left to search."""
    configuration = stack.recipe.configuration(inputs.place)
    proof = prove(configuration, target.tuned, inputs.base)
    equal = {str(layer): [f"{named(one.model)} {one.number}" for one in found] for layer, found in stack.equal.items()}
    alike = Rival(method="passthrough", parameters={"layers": equal}, identical_share=1.0, apart="nothing in the weights: these layers are equal")
    return {
        "answer": FOUND,
        "method": stack.recipe.method,
        "parameters": parameters_of(stack.recipe),
        "identical_share": proof.identical_share,
        "proof": proof,
        "rivals": [alike] if equal else [],
        "configuration": configuration,
        "looked": ["layers of the base and of every atom"],
    }


def _recipe(found: Sequence[Candidate]) -> dict[str, Any]:
    """The best candidate, proven, and the others beside it."""
    first, *others = found
    case = first.case
    for candidate in found:
        candidate.case.release()  # mergekit needs the room
    configuration = first.recipe.configuration(case.inputs.place)
    proof = prove(configuration, case.target, case.inputs.base) if first.drawn is None else _by_reading(first)
    return {
        "answer": FOUND,
        "method": first.recipe.method,
        "parameters": parameters_of(first.recipe),
        "acted": acted(first.recipe),
        "scale_free": is_scale_free(first.recipe),
        "identical_share": proof.identical_share,
        "proof": proof,
        "rivals": [_rival(first, other) for other in others],
        "configuration": configuration,
    }


def _rest(case: Case, target: Difference, contents: Decomposition, changed: Sequence[str], looked: list[str]) -> dict[str, Any]:
    """No recipe makes the target: what part of one is known, and what the rest may be."""
    part = known_part(case, contents, looked)
    rest = contents.unexplained
    share = part.unexplained if part else 1.0
    guess = nature(target, changed, rest.rank, rest.components)
    unknown = Unknown(
        share=share,
        norm=contents.norm * share**0.5,
        rounding_share=rest.rounding_share if part else None,
        rank=rest.rank,
        components=rest.components,
        nature=guess.value,
    )
    if part is None:
        return {"answer": FINE_TUNE if guess.is_fine_tune else NONE, "unknown": unknown}
    return {
        "answer": PART,
        "method": part.recipe.method,
        "parameters": parameters_of(part.recipe),
        "acted": part.acted,
        "scale_free": is_scale_free(part.recipe),
        "proof": part.proof,
        "rivals": part.rivals,
        "unknown": unknown,
    }


def _by_reading(candidate: Candidate) -> Proof:
    reading = candidate.drawn
    assert reading is not None
    return Proof(reconstruction_error=reading.error, explained=reading.explained, telling=reading.telling, decoys=decoys(candidate.case, reading))


def _rival(first: Candidate, other: Candidate) -> Rival:
    apart = "nothing in the weights: both make the same" if other.share >= first.share else f"{first.share - other.share:.2%} more identical weights"
    return Rival(method=other.recipe.method, parameters=parameters_of(other.recipe), identical_share=other.share, apart=apart)
