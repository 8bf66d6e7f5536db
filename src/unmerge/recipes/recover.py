"""From a target back to the mergekit configuration that makes it.

Least squares says which atoms may be in the target. Each method's file turns what that method leaves behind into a recipe;
the recipe is run, a few tensors first, and compared weight by weight. The best one is run once more by mergekit itself, from
cold caches: the share of identical weights is the proof. Masks drawn at random cannot be drawn again; they are read off, and
the share of weights that one of the sums explains stands beside the same share for decoys.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from unmerge.checkpoints import Adapter, Checkpoint, Difference
from unmerge.core.records import environment, write_json, write_text
from unmerge.decomposition import Dictionary
from unmerge.decomposition.dictionary import Vector
from unmerge.decomposition.result import SkippedTensor
from unmerge.recipes.case import Case
from unmerge.recipes.combinations import has_pair, recover_adapter
from unmerge.recipes.decoys import decoys
from unmerge.recipes.drawn import Drawn, drawn
from unmerge.recipes.inputs import Inputs
from unmerge.recipes.methods import DETERMINED
from unmerge.recipes.methods.by_chance import recipe_of
from unmerge.recipes.proof import prove
from unmerge.recipes.recipe import BASE, Recipe
from unmerge.recipes.record import Proof, RecoveredRecipe, Rival, Unknown
from unmerge.recipes.shortlist import clearness, sets
from unmerge.vectors import Gram, gram
from unmerge.vectors.delta import norm_squared

NONE, FOUND, UNCHANGED = "none of these", "recipe", "base"

#: a share of identical weights that is an answer, one that ends the search, and one that makes a rival
_ANSWER, _EXACT, _RIVAL = 0.95, 0.9995, 0.5
#: weights that the order of a sum may move are as good as identical; in bfloat16 that would hide another recipe
_SPACINGS = {torch.bfloat16: 0.0, torch.float16: 0.0, torch.float32: 2.0, torch.float64: 2.0}

Watch = Callable[[Iterable[str]], Iterable[str]]


@dataclass(frozen=True)
class _Candidate:
    recipe: Recipe
    share: float
    drawn: Drawn | None = None


def recover(target: Vector, dictionary: Dictionary, base: Checkpoint, out: Path, watch: Watch = iter) -> RecoveredRecipe:
    """Recover the recipe of a target, write it and its record.

    Args:
        target: a checkpoint minus the base, or an adapter.
        dictionary: the atoms.
        base: the base model.
        out: ``RECIPE.yml``; the record is written beside it, as ``RECIPE.json``.
        watch: wraps the loop over tensors, for a progress bar.

    Returns:
        The record.
    """
    started = time.monotonic()
    if isinstance(target, Adapter):
        return _recover_adapter(target, dictionary, base, out, watch, started)
    products = gram(dictionary.atoms, target, watch)
    with tempfile.TemporaryDirectory(prefix="unmerge-") as scratch:
        inputs = Inputs(base, dictionary, Path(scratch))
        answer = _answer(target, inputs, products)
        record = RecoveredRecipe(
            **answer,
            skipped=[SkippedTensor(tensor=skip.tensor, reason=skip.reason) for skip in products.skipped],
            target=target.source(),
            base=base.source(),
            dictionary={atom.name: atom.source() for atom in dictionary.atoms},
            seconds=round(time.monotonic() - started, 3),
            environment=environment(),
        )
    if record.configuration is not None:
        write_text(out, yaml.safe_dump(record.configuration, sort_keys=False))
    write_json(out.with_suffix(".json"), record)
    return record


def _recover_adapter(target: Adapter, dictionary: Dictionary, base: Checkpoint, out: Path, watch: Watch, started: float) -> RecoveredRecipe:
    """An adapter's recipe is a call of PEFT, which the record holds; there is no configuration."""
    looked: list[str] = []
    found = recover_adapter(target, [atom for atom in dictionary.atoms if isinstance(atom, Adapter)], looked, watch)
    answer: dict[str, Any] = {
        "answer": NONE,
        "unknown": Unknown(share=1.0, norm=sum(norm_squared(target.delta(tensor)) for tensor in target.shapes) ** 0.5),
    }
    if found is not None:
        answer = {"answer": FOUND, "method": found.method, "parameters": found.parameters, "call": found.call, "proof": found.proof}
        answer["identical_share"] = found.proof.identical_share
    left_out = [SkippedTensor(tensor=tensor, reason="not a product of two factors") for tensor in target.shapes if not has_pair(target, tensor)]
    record = RecoveredRecipe(
        **answer,
        looked=looked,
        skipped=[*(SkippedTensor(tensor=skip.tensor, reason=skip.reason) for skip in target.skipped), *left_out],
        target=target.source(),
        base=base.source(),
        dictionary={atom.name: atom.source() for atom in dictionary.atoms},
        seconds=round(time.monotonic() - started, 3),
        environment=environment(),
    )
    write_json(out.with_suffix(".json"), record)
    return record


def _answer(target: Difference, inputs: Inputs, products: Gram) -> dict[str, Any]:
    changed = [tensor for tensor, norm in zip(products.tensors, products.norm_squared, strict=True) if norm > 0]
    touched = [tensor for row, tensor in enumerate(products.tensors) if products.gram[row].any() or tensor in changed]
    if not changed:
        return {"answer": UNCHANGED, "identical_share": 1.0}
    case = Case.of(inputs, target.tuned, touched)
    looked: list[str] = []
    found = _search(case, sets(clearness(products)), looked)
    norm = float(products.norm_squared.sum()) ** 0.5
    if not found:
        return {"answer": NONE, "looked": looked, "unknown": Unknown(share=1.0, norm=norm)}
    first, *others = sorted(found, key=lambda candidate: (candidate.drawn is None, -candidate.share))
    configuration = first.recipe.configuration(inputs.place)
    proof = prove(configuration, target.tuned, inputs.base) if first.drawn is None else _by_reading(case, first.drawn)
    return {
        "answer": FOUND,
        "method": first.recipe.method,
        "parameters": parameters_of(first.recipe),
        "identical_share": proof.identical_share,
        "proof": proof,
        "rivals": [_rival(first, other) for other in others if other.share >= _RIVAL],
        "configuration": configuration,
        "looked": looked,
    }


def _search(case: Case, tried: Sequence[tuple[str, ...]], looked: list[str]) -> list[_Candidate]:
    """Candidates that are an answer, and what comes near them."""
    found: list[_Candidate] = []
    for atoms in tried:
        for name, candidates in DETERMINED.items():
            looked.append(f"{name} of {', '.join(atoms)}")
            found += [_Candidate(recipe, case.identical(recipe, spacings=_SPACINGS[case.dtype])) for recipe in candidates(case, atoms)]
            if max((candidate.share for candidate in found), default=0.0) >= _EXACT:
                return found
        if max((candidate.share for candidate in found), default=0.0) >= _ANSWER:
            return found
        looked.append(f"random masks of {', '.join(atoms)}")
        reading = drawn(case, atoms)
        if reading is not None and reading.speaks:
            return [_Candidate(recipe_of(case, reading), reading.explained, reading), *found]
    return []


def _by_reading(case: Case, reading: Drawn) -> Proof:
    return Proof(reconstruction_error=reading.error, explained=reading.explained, telling=reading.telling, decoys=decoys(case, reading))


def parameters_of(recipe: Recipe) -> dict[str, Any]:
    """Settings by atom, and those for all."""
    named = {"the base" if model.model == BASE else model.model: dict(model.parameters) for model in recipe.inputs}
    return {"models": named, **recipe.parameters}


def _rival(first: _Candidate, other: _Candidate) -> Rival:
    apart = "nothing in the weights: both make the same" if other.share >= first.share else f"{first.share - other.share:.2%} more identical weights"
    return Rival(method=other.recipe.method, parameters=parameters_of(other.recipe), identical_share=other.share, apart=apart)
