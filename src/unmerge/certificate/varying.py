"""What components leave of a target, and which of them act with another coefficient from tensor to tensor."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from unmerge.certificate.candidates import Candidates
from unmerge.certificate.directions import Directions
from unmerge.certificate.evidence import DIRECTIONS, TensorEvidence, low_rank
from unmerge.certificate.oblique import Oblique, oblique
from unmerge.certificate.profile import varies
from unmerge.certificate.refined import Refined, refined
from unmerge.certificate.systems import own_answers, own_precisions
from unmerge.vectors import LowRank

Matrix = NDArray[np.float64]

#: an atom that varies acts in a tensor where it shows at least this share of the containment that theory expects; elsewhere its coefficient starts
#: from 0, so that no rank of what is left is taken for its own. Present atoms show about 1, absent ones below .5
SHOWN_IN_TENSOR = 0.7
#: atoms that vary are not believed where they leave more than this share of the target's squared norm: without them it is 1
_MOST_LEFT = 1.0


def look_closer(some: Candidates, rounds: int) -> tuple[Refined, NDArray[np.bool_]]:
    """A closer look at what the components leave, and (k,) which of them vary from part to part of the model.

    Args:
        some: the components.
        rounds: of ``refined``.
    """

    def look(field: Matrix, varying: NDArray[np.bool_]) -> Refined:
        return refined(some.known, some.target, some.looked(field), field, some.watch, rounds, varying, some.others)

    field, varying = _start(some)
    closer = look(field, varying)
    own = own_answers(closer.gram, closer.correlation)
    also = _varying(own, own_precisions(closer.gram), some.names, some.noisy) & ~varying
    if also.any():
        varying = varying | also
        field = np.where(varying, np.nan_to_num(own), closer.coefficients)
        closer = look(field, varying)
    if varying.any() and some.share_left(np.nan_to_num(closer.coefficients)) > _MOST_LEFT:
        nothing = np.zeros_like(varying)
        return look(np.tile(some.squares, (len(some.seen), 1)), nothing), nothing
    return closer, varying


def _start(some: Candidates) -> tuple[Matrix, NDArray[np.bool_]]:
    """(m, k) first coefficients, and (k,) which atoms vary as far as the target's signal subspaces tell."""
    field, varying = np.tile(some.squares, (len(some.seen), 1)), np.zeros(len(some.chosen), dtype=bool)
    low = [low_rank(some.atoms, some.chosen, name) for name in some.names]
    told = [place for place, deltas in enumerate(low) if deltas]
    # what atoms without a low rank leave cannot be told within the target's signal subspaces alone: then least squares is the start
    if not told or some.dense.any():
        return field, varying
    items, deltas = [some.seen[place] for place in told], [low[place] for place in told]
    first = _oblique(items, some.chosen, deltas, np.ones((len(told), len(some.chosen)), dtype=bool), some.squares)
    field[:] = first.together
    varying = _varying(first.by_tensor, first.precision, [some.names[place] for place in told], some.noisy)
    if varying.any():
        # an atom that is not in a tensor would take a rank there that is the unknown's
        acts = ~varying | (np.array([item.shown(some.chosen, some.squares) for item in items]) >= SHOWN_IN_TENSOR)
        first = _oblique(items, some.chosen, deltas, acts, some.squares)
        field[:] = first.together
        field[told] = np.where(varying, np.nan_to_num(first.by_tensor), field[told])
    return field, varying


def _oblique(
    items: Sequence[TensorEvidence], chosen: Sequence[int], deltas: Sequence[list[tuple[int, LowRank]]], acts: NDArray[np.bool_], squares: Matrix
) -> Oblique:
    """``oblique`` with each tensor's own atoms.

    Args:
        items: what m tensors say.
        chosen: k atoms.
        deltas: (place, change) of those that change each tensor.
        acts: (m, k) whether an atom is in a tensor. Where it is not, its answer is NaN.
        squares: (k,) a first guess.

    Returns:
        Coefficients of all tensors, those for all of them by the precision of each one's own, or by their median where there is no noise: the own
        answers of most tensors are exact then.
    """
    m, k = acts.shape
    own, precision = np.full((m, k), np.nan), np.zeros((m, k))
    found: Oblique | None = None
    for here in np.unique(acts, axis=0):
        rows, places = np.flatnonzero((acts == here).all(1)).tolist(), np.flatnonzero(here).tolist()
        atoms = [chosen[place] for place in places]
        parts = [[(atom, delta) for atom, delta in deltas[row] if atom in atoms] for row in rows]
        if not all(parts):
            continue
        directions = [Directions.of(part, DIRECTIONS) for part in parts]
        found = oblique([items[row] for row in rows], atoms, directions, squares[places])
        own[np.ix_(rows, places)], precision[np.ix_(rows, places)] = found.by_tensor, found.precision
    if found is not None and acts.all():
        return found
    if any(item.noise for item in items):
        told = np.isfinite(own) & (precision > 0)
        weights = np.where(told, precision, 0.0)
        together = np.divide((np.nan_to_num(own) * weights).sum(0), weights.sum(0), out=np.zeros(k), where=weights.sum(0) > 0)
    else:
        together = np.array([np.median(column[np.isfinite(column)]) if np.isfinite(column).any() else 0.0 for column in own.T])
    return Oblique(together, own, precision)


def _varying(own: Matrix, precision: Matrix, tensors: Sequence[str], noisy: bool) -> NDArray[np.bool_]:
    return np.array([varies(own[:, place], precision[:, place], tensors, noisy) for place in range(own.shape[1])], dtype=bool)
