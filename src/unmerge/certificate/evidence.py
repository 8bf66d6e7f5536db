"""What each tensor of a target says about every low-rank atom: the one pass over the target."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unmerge.certificate.directions import Directions
from unmerge.certificate.spectrum import Signal, expected_containment, signal_of
from unmerge.vectors import Delta, Dense, LowRank, Subtracted, TaskVector, each_tensor, in_scratch, placed

Matrix = NDArray[np.float64]

#: directions of each atom that are looked at
DIRECTIONS = 8
#: a tensor is blind when a random direction pair would be contained by this much
BLIND = 0.5


@dataclass(frozen=True)
class TensorEvidence:
    """What one tensor says; R directions of the atoms, a signal of the target of rank r.

    Attributes:
        tensor: its name.
        shape: (out, in).
        noise, edge, cut: of the target, as in ``Signal``.
        filled: containment of a random direction pair.
        usual_rank: median rank of the atoms.
        signal_values: (r,) the target's singular values.
        owner: (R,) the atom of each direction; places from the number of atoms on are stand-ins.
        values: (R,) singular values of the atoms.
        left, right: (r, R) the directions in the target's signal subspaces.
        along: (R,) u^T T v.
        surrogate: (surrogates, R) containment in surrogate targets.
        error: of the target's singular triples, as in ``Signal``.
    """

    tensor: str
    shape: tuple[int, int]
    noise: float
    edge: float
    cut: float
    filled: float
    usual_rank: float
    signal_values: Matrix
    owner: NDArray[np.int64]
    values: Matrix
    left: Matrix
    right: Matrix
    along: Matrix
    surrogate: Matrix
    error: float = 0.0

    @property
    def is_blind(self) -> bool:
        """Whether the target's signal fills the tensor."""
        return self.filled >= BLIND

    @property
    def containment(self) -> Matrix:
        """(R,) |U^T u|^2 |V^T v|^2 of every direction pair in the target's signal subspaces."""
        product: Matrix = np.square(self.left).sum(0) * np.square(self.right).sum(0)
        return product

    @property
    def least(self) -> float:
        """The singular value that a direction must exceed to be in the target's signal."""
        return self.edge if self.noise else self.cut

    def directions(self, atoms: Sequence[int], coefficients: Matrix) -> list[int]:
        """(k,) how many directions each atom has in the target's signal at its coefficient."""
        return [int((abs(c) * self.values[self.owner == atom] > self.least).sum()) for atom, c in zip(atoms, coefficients, strict=True)]

    def rank_left(self, atoms: Sequence[int], coefficients: Matrix) -> int:
        """The rank that some atoms leave of the target's signal: each takes away as many directions as it has there."""
        return max(len(self.signal_values) - sum(self.directions(atoms, coefficients)), 0)

    def shown(self, atoms: Sequence[int], coefficients: Matrix) -> Matrix:
        """(k,) the share of the expected containment that some atoms show here, each at its coefficient; 0 where nothing is expected."""
        result = np.zeros(len(atoms))
        for place, (atom, coefficient) in enumerate(zip(atoms, coefficients, strict=True)):
            own = self.owner == atom
            expected = expected_containment(abs(coefficient) * self.values[own], self.noise, self.cut, self.shape)
            if (whole := float(expected @ expected)) > 0:
                result[place] = float(expected @ self.containment[own]) / whole
        return result

    def expected(self, coefficients: Matrix) -> Matrix:
        """(R,) containment of every direction if its atom were present with its coefficient."""
        strength = np.zeros(len(self.owner))
        real = self.owner < len(coefficients)  # stand-ins are not tested
        strength[real] = np.abs(coefficients[self.owner[real]]) * self.values[real]
        return expected_containment(strength, self.noise, self.cut, self.shape)


def gather(
    atoms: Sequence[TaskVector],
    target: TaskVector,
    weights: Matrix,
    tensors: Iterable[str],
    watch: Callable[[Iterable[str]], Iterable[str]] = iter,
) -> list[TensorEvidence]:
    """One pass over the target: what every matrix says about every low-rank atom.

    Args:
        atoms: n of them.
        target: the target.
        weights: (surrogates, n + stand-ins) as ``surrogate_weights`` draws them.
        tensors: those that count; only matrices that the target and an atom change are looked at.
        watch: wraps the loop over tensors, for a progress bar.
    """
    matrices = [name for name in tensors if len(target.shapes.get(name, ())) == 2 and any(name in atom.shapes for atom in atoms)]

    def told(tensor: str) -> TensorEvidence | None:
        if not (low := low_rank(atoms, range(len(atoms)), tensor)):
            return None
        directions = Directions.of(low, DIRECTIONS).with_stand_ins(len(atoms), weights.shape[1] - len(atoms), tensor)
        usual_rank = float(np.median([delta.rank for _, delta in low]))
        change = placed(target.delta(tensor))
        return _evidence(tensor, directions, Dense(in_scratch(change)) if isinstance(change, Subtracted) else change, weights, usual_rank)

    found = [item for _, item in zip(watch(matrices), each_tensor(matrices, target.shapes, told), strict=True)]
    return [item for item in found if item is not None]


def low_rank(atoms: Sequence[TaskVector], chosen: Iterable[int], tensor: str) -> list[tuple[int, LowRank]]:
    """(place, change) of the chosen atoms that change a tensor by low rank."""
    deltas = ((place, atoms[place].delta(tensor)) for place in chosen if tensor in atoms[place].shapes)
    return [(place, delta) for place, delta in deltas if isinstance(delta, LowRank)]


def _evidence(tensor: str, directions: Directions, delta: Delta, weights: Matrix, usual_rank: float) -> TensorEvidence:
    signal: Signal = signal_of(delta)
    return TensorEvidence(
        tensor=tensor,
        shape=signal.shape,
        noise=signal.noise,
        edge=signal.edge,
        cut=signal.cut,
        filled=signal.filled,
        usual_rank=usual_rank,
        signal_values=signal.values.numpy(),
        owner=directions.owner,
        values=directions.values,
        left=(signal.left.T @ directions.left).numpy(),
        right=(signal.right.T @ directions.right).numpy(),
        along=directions.along(delta),
        surrogate=directions.surrogates(weights, signal.rank),
        error=signal.error,
    )
