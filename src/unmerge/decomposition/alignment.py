"""Task vectors that are to be compared, brought to the same tensors: one name for each, the tied head, and the rows of a vocabulary.

Each is read against its base alone. Where no base is given, adapters may call one tensor differently; where the change of a tied head lies depends
on the target; and a vocabulary may have grown, or been trimmed, in one of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

from unmerge.checkpoints import Adapter, Difference
from unmerge.checkpoints.tensor_names import match_names
from unmerge.checkpoints.vocabulary import is_outside, rows_beyond
from unmerge.core.errors import BadInput
from unmerge.decomposition.dictionary import Dictionary, Vector, folder_of
from unmerge.decomposition.result import MatchedTensors, SkippedTensor
from unmerge.vectors import Held, Shape, Skipped


def aligned(vectors: Sequence[Vector]) -> tuple[Vector, ...]:
    """Task vectors of one model, with one name and one shape for each tensor. What is aligned stays as it is.

    Args:
        vectors: names of the first are kept.

    Raises:
        BadInput: without a base, a tensor of one may be one or another tensor of those before it.
    """
    return _with_common_rows(_with_shared_head(_with_one_name(vectors)))


def aligned_with(target: Vector, dictionary: Dictionary) -> tuple[Vector, Dictionary]:
    """A target and a dictionary, ``aligned``."""
    first, *atoms = aligned([target, *dictionary.atoms])
    return first, Dictionary(tuple(atoms), dictionary.ignored)


def strangers(target: Vector, atoms: Iterable[Vector]) -> list[str]:
    """Warnings for atoms that change no tensor that the target changes.

    Raises:
        BadInput: that holds for all atoms, and not even the modules that the names speak of are the target's.
    """
    atoms = list(atoms)
    apart = [atom for atom in atoms if not atom.shapes.keys() & target.shapes.keys()]
    if apart and len(apart) == len(atoms) and not _places(target) & {place for atom in atoms for place in _places(atom)}:
        raise BadInput(
            expected=f"tensors that an atom changes as well ({_example(apart[0])} in {apart[0].name}, ...)",
            found=f"none ({_example(target)}, ...)",
            where=folder_of(target),
            hint="give atoms of the target's model, or with --base the model that both belong to",
        )
    return [f"{atom.name} changes no tensor that the target changes ({_example(atom)}, ...; the target {_example(target)}, ...)" for atom in apart]


def left_out(skipped: Iterable[Skipped], vectors: Iterable[Vector]) -> list[SkippedTensor]:
    """What is not compared: whole tensors, and rows, which are named with the vector that has more or fewer."""
    rows = (Skipped(skip.tensor, f"{vector.name}: {skip.reason}") for vector in vectors for skip in vector.left_rows)
    return [SkippedTensor(tensor=skip.tensor, reason=skip.reason) for skip in (*skipped, *rows)]


def matched_names(vectors: Iterable[Vector]) -> list[MatchedTensors]:
    """What each task vector calls otherwise."""
    return [
        MatchedTensors(vector=vector.name, own=names.own, reference=names.reference, tensors=names.tensors, example=names.example)
        for vector in vectors
        if not isinstance(vector, Held)
        for names in vector.matched_names
    ]


def _with_one_name(vectors: Sequence[Vector]) -> tuple[Vector, ...]:
    """Adapters without a base, by the names of those before them; with a base, all have its names already."""
    reference: dict[str, Shape] = {}
    named: list[Vector] = []
    for vector in vectors:
        if reference and isinstance(vector, Adapter) and vector.base is None and not vector.shapes.keys() & reference.keys():
            named.append(vector.renamed(match_names(vector.shapes, reference, vector.folder)))
        else:
            named.append(vector)
        reference = {**named[-1].shapes, **reference}
    return tuple(named)


def _with_shared_head(vectors: Sequence[Vector]) -> tuple[Vector, ...]:
    """The change of a tied head in the embedding, where a merge adds it, if all checkpoints have both as one; else where it acts."""
    checkpoints = [vector for vector in vectors if isinstance(vector, Difference)]
    if not checkpoints or not all(vector.has_shared_head for vector in checkpoints):
        return tuple(vectors)
    return tuple(vector.with_shared_head() if isinstance(vector, Adapter) else vector for vector in vectors)


def _with_common_rows(vectors: Sequence[Vector]) -> tuple[Vector, ...]:
    """As many rows of each tensor outside of the layers as all have."""
    rows: dict[str, set[int]] = {}
    for vector in vectors:
        for tensor, shape in vector.shapes.items():
            if shape and is_outside(tensor):
                rows.setdefault(tensor, set()).add(shape[0])
    least = {tensor: min(counts) for tensor, counts in rows.items() if len(counts) > 1}
    return tuple(_trimmed(vector, least) for vector in vectors) if least else tuple(vectors)


def _trimmed(vector: Vector, least: dict[str, int]) -> Vector:
    here = {tensor: count for tensor, count in least.items() if tensor in vector.shapes and vector.shapes[tensor][0] > count}
    if not here:
        return vector
    beyond = {tensor: rows_beyond(vector.shapes[tensor][0], count) for tensor, count in here.items()}
    left = tuple(Skipped(tensor, f"{rows}: not all that are compared have them") for tensor, rows in beyond.items())
    return replace(vector.first_rows(here), left_rows=(*vector.left_rows, *left))


def _places(vector: Vector) -> set[str]:
    """What the names begin with: what holds the layers, or the module outside of them."""
    return {re.split(r"\.\d+\.", tensor)[0] if not is_outside(tensor) else tensor for tensor in vector.shapes}


def _example(vector: Vector) -> str:
    return next(iter(vector.shapes))
