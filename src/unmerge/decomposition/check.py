"""What can be said of a dictionary before there is a target: duplicates, conditioning, and modules that would be blind.

A tensor of shape (out, in) is blind to the certificate once a target's signal fills it: rank^2 / (out x in) >= BLIND. So a target
may hold n components of rank r as long as (n r)^2 < BLIND x out x in.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterable
from statistics import median

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from unmerge.certificate.duplicates import ALIKE, families
from unmerge.certificate.evidence import BLIND
from unmerge.checkpoints import Checkpoint
from unmerge.core.records import Environment, Source, environment
from unmerge.decomposition.alignment import aligned, left_out, matched_names
from unmerge.decomposition.base_check import check_names
from unmerge.decomposition.dictionary import Dictionary, notes_of
from unmerge.decomposition.result import MatchedTensors, SkippedTensor
from unmerge.solvers import Problem
from unmerge.vectors import LowRank, Stack, common

SCHEMA = "unmerge/dictionary/1"

#: from this cosine on two atoms are the same one
DUPLICATE = 0.999
#: a tensor is listed as blind when a target of so many components would fill it
COMPONENTS = 5


class CheckedAtom(BaseModel):
    """One atom.

    Attributes:
        norm: ||v|| over all weights.
        rank: the largest of its low-rank changes; None for an atom that has none (a checkpoint, an expanded LoHa).
        tensors: how many it changes.
    """

    name: str
    norm: float
    rank: int | None
    tensors: int


class Pair(BaseModel):
    """Two atoms that are alike."""

    first: str
    second: str
    cosine: float
    duplicate: bool


class CheckedTensor(BaseModel):
    """One matrix that the dictionary changes.

    Attributes:
        shape: (out, in).
        summed_rank: of all low-rank atoms.
        components: of the dictionary's median rank, how many a target may hold before this tensor is blind; None where no atom is of
            low rank.
    """

    tensor: str
    shape: tuple[int, int]
    summed_rank: int
    components: int | None


class DictionaryCheck(BaseModel):
    """The JSON that ``unmerge decompose --check-dictionary --json`` writes.

    Attributes:
        pairs: every two atoms with |cosine| >= .4, the most alike first.
        families: atoms connected by such pairs, at least two in each; the certificate reports members that it cannot tell apart as a group.
        condition_number: of the atoms' cosines; None where it is infinite: some atoms are combinations of others.
        median_rank: over all low-rank changes of the dictionary; None without any.
        blind: tensors that a target of five components or fewer would fill.
    """

    model_config = ConfigDict(serialize_by_alias=True)

    # "schema" is the key in JSON; as an attribute it would hide one of pydantic's
    schema_: str = Field(SCHEMA, alias="schema")
    base: Source | None
    dictionary: dict[str, Source]
    atoms: list[CheckedAtom]
    pairs: list[Pair]
    families: list[list[str]]
    condition_number: float | None
    median_rank: float | None
    tensors: list[CheckedTensor]
    blind: list[str]
    skipped: list[SkippedTensor]
    matched_names: list[MatchedTensors] = []
    warnings: list[str]
    seconds: float
    environment: Environment


def check_dictionary(
    dictionary: Dictionary, base: Checkpoint | None = None, watch: Callable[[Iterable[str]], Iterable[str]] = iter
) -> DictionaryCheck:
    """Measure a dictionary, without a target.

    Args:
        dictionary: the atoms.
        base: the base, where one was given; for checks and for the record.
        watch: wraps the loop over tensors, for a progress bar.

    Raises:
        BadInput: two atoms give a tensor different shapes.
    """
    started = time.monotonic()
    atoms = aligned(dictionary.atoms)
    names = [atom.name for atom in atoms]
    shapes, skipped = common(atoms)
    products = np.zeros((len(atoms), len(atoms)))
    changed = np.zeros(len(atoms), dtype=np.int64)
    ranks: dict[str, dict[int, int]] = {}
    for tensor in watch(list(shapes)):
        deltas = [atom.delta(tensor) if tensor in atom.shapes else None for atom in atoms]
        gram = Stack.of(deltas).gram()
        products += gram
        changed += np.diag(gram) > 0
        ranks[tensor] = {place: delta.rank for place, delta in enumerate(deltas) if isinstance(delta, LowRank)}
    problem = Problem(products, np.zeros(len(atoms)), 0.0)
    median_rank = float(median(every)) if (every := [rank for held in ranks.values() for rank in held.values()]) else None
    tensors = [_tensor(tensor, (shape[0], shape[1]), ranks[tensor], median_rank) for tensor, shape in shapes.items() if len(shape) == 2]
    condition = problem.condition()
    warnings = check_names(base, list(atoms))
    warnings += notes_of(base, atoms, dictionary)
    warnings += [f"{name} changes nothing; it is not looked for" for name, norm in zip(names, problem.norms, strict=True) if norm == 0]
    return DictionaryCheck(
        base=base.source() if base else None,
        dictionary={atom.name: atom.source() for atom in atoms},
        atoms=[
            CheckedAtom(
                name=name,
                norm=float(problem.norms[place]),
                rank=max((held[place] for held in ranks.values() if place in held), default=None),
                tensors=int(changed[place]),
            )
            for place, name in enumerate(names)
        ],
        pairs=_pairs(names, problem.cosines),
        families=[[names[place] for place in family] for family in families(products) if len(family) > 1],
        condition_number=condition if math.isfinite(condition) else None,
        median_rank=median_rank,
        tensors=tensors,
        blind=[tensor.tensor for tensor in tensors if tensor.components is not None and tensor.components < COMPONENTS],
        skipped=left_out(skipped, atoms),
        matched_names=matched_names(atoms),
        warnings=warnings,
        seconds=round(time.monotonic() - started, 3),
        environment=environment(),
    )


def _pairs(names: list[str], cosines: NDArray[np.float64]) -> list[Pair]:
    alike = [(i, j) for i, j in itertools.combinations(range(len(names)), 2) if abs(cosines[i, j]) >= ALIKE]
    alike.sort(key=lambda pair: -abs(cosines[pair]))
    return [Pair(first=names[i], second=names[j], cosine=float(cosines[i, j]), duplicate=bool(abs(cosines[i, j]) >= DUPLICATE)) for i, j in alike]


def _tensor(tensor: str, shape: tuple[int, int], ranks: dict[int, int], median_rank: float | None) -> CheckedTensor:
    # the largest n with (n r)^2 < BLIND out in
    components = math.ceil(math.sqrt(BLIND * math.prod(shape)) / median_rank) - 1 if median_rank else None
    return CheckedTensor(tensor=tensor, shape=shape, summed_rank=sum(ranks.values()), components=components)
