"""A closer look at what the components leave: its own signal subspaces, one tensor at a time.

``oblique`` knows what is left only within the target's signal subspaces, where noise has bent it. Here the components are
subtracted from the target itself, the singular directions of what is left above the noise are projected off both sides of atoms
and target, and least squares follows. Two such rounds are enough: each moves by a fraction of the one before.

An atom has one coefficient in all tensors, or, where it varies, one in each: what is left then holds nothing of it in any of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from unmerge.certificate.identity import remains
from unmerge.certificate.range_finder import Leading
from unmerge.certificate.spectrum import Signal, signal_of, signal_of_wide
from unmerge.certificate.systems import solve_partly
from unmerge.certificate.unknown import left_over, rank_above_noise
from unmerge.vectors import Delta, Dense, LowRank, Stack, Subtracted, TaskVector, each_tensor, is_large, norm_squared, placed

Matrix = NDArray[np.float64]

ROUNDS = 2
#: a singular value is near the edge of the noise up to this many times of it
NEAR = 1.5


@dataclass(frozen=True)
class Refined:
    """Coefficients of k atoms from m tensors, and what they leave.

    Attributes:
        coefficients: (m, k) in each tensor; the same in all for an atom that does not vary, NaN where the tensor says nothing of one that does.
        gram, correlation: (m, k, k) and (m, k) normal equations of every tensor with the unknown projected off, over its noise.
        ranks: (m,) rank above the noise of what is left.
        kept: (k,) the share of each atom that is not projected off with what is left, over the noise.
        remains: (m, k, 2, 3) what is left in each atom's own subspaces (``identity.remains``), of the target less the atoms at ``taken``.
        excess: (m,) how many more directions the signal of that has than the atoms leave of the target's.
        taken: (m, k) the coefficients of the last round's start.
        elsewhere: (m, p, 2, 3) the same as ``remains`` in the subspaces of some other atoms.
        near: (m,) how many singular values of what is left are above the edge of its noise, and by less than half of it.
    """

    coefficients: Matrix
    gram: Matrix
    correlation: Matrix
    ranks: NDArray[np.int64]
    kept: Matrix
    remains: Matrix
    excess: NDArray[np.int64]
    taken: Matrix
    elsewhere: Matrix
    near: NDArray[np.int64]


@dataclass(frozen=True)
class Looked:
    """What is known of a tensor that counts.

    Attributes:
        tensor: its name.
        noise: standard deviation of the target's noise.
        most: rank of what is left, at most, where the target has no noise: the rest is what a truncated target lacks of the atoms.
        rank: of the target's signal.
        least: the singular value that a direction must exceed to be in it.
        square: the target's squared norm; taken where it is not given.
    """

    tensor: str
    noise: float
    most: int
    rank: int = 0
    least: float = 0.0
    square: float | None = None

    def expected(self, components: Sequence[Delta]) -> int:
        """The rank that some components leave of the signal, each at its coefficient."""
        return max(self.rank - sum(int((part.svd()[1] > self.least).sum()) for part in components if isinstance(part, LowRank)), 0)


def refined(
    atoms: Sequence[TaskVector],
    target: TaskVector,
    tensors: Sequence[Looked],
    coefficients: Matrix,
    watch: Callable[[Iterable[str]], Iterable[str]] = iter,
    rounds: int = ROUNDS,
    varying: NDArray[np.bool_] | None = None,
    others: Sequence[TaskVector] = (),
) -> Refined:
    """Refine coefficients, and tell what the components leave.

    Args:
        atoms: the k present ones.
        target: the target.
        tensors: the m matrices that count.
        coefficients: (k,), or (m, k) by tensor, a good first guess.
        watch: wraps the loops over tensors, for a progress bar.
        rounds: of projecting and solving; without noise one is exact, unless an atom varies.
        varying: (k,) which atoms have a coefficient in each tensor; none where not given.
        others: p atoms that are not in the target: what is left is looked at in their subspaces as well.
    """
    k = len(atoms)
    varying = np.zeros(k, dtype=bool) if varying is None else varying
    rounds = rounds if any(item.noise for item in tensors) or varying.any() else 1
    names = [item.tensor for item in tensors]
    known = dict(zip(names, tensors, strict=True))
    gram, correlation = np.zeros((len(tensors), k, k)), np.zeros((len(tensors), k))
    ranks, whole, remaining = np.zeros(len(tensors), dtype=np.int64), np.zeros((len(tensors), k)), np.zeros((len(tensors), k + len(others), 2, 3))
    excess, near = np.zeros(len(tensors), dtype=np.int64), np.zeros(len(tensors), dtype=np.int64)
    field = np.array(np.broadcast_to(coefficients, (len(tensors), k)))
    used: dict[str, Matrix] = {}
    for turn in range(rounds):
        used = dict(zip(names, np.nan_to_num(field), strict=True))
        look = partial(_look, atoms, others if turn == rounds - 1 else None, target, known, used)
        for row, (_, found) in enumerate(zip(watch(names), each_tensor(names, target.shapes, look), strict=True)):
            gram[row], correlation[row], whole[row], ranks[row], remaining[row, : len(found[4])], excess[row], near[row] = found
        field = solve_partly(gram, correlation, varying) if k else field
    left = np.einsum("mii->i", gram)
    kept = np.divide(left, whole.sum(0), out=np.zeros(k), where=whole.sum(0) > 0)
    taken = np.array(list(used.values())).reshape(len(tensors), k)
    return Refined(field, gram, correlation, ranks, kept, remaining[:, :k], excess, taken, remaining[:, k:], near)


def _look(
    atoms: Sequence[TaskVector],
    others: Sequence[TaskVector] | None,
    target: TaskVector,
    known: Mapping[str, Looked],
    used: Mapping[str, Matrix],
    tensor: str,
) -> tuple[Matrix, Matrix, Matrix, int, Matrix, int, int]:
    """Of one tensor (k, k) and (k,) normal equations, (k,) the atoms' squared norms over the noise, and in the last round what is left.

    That is: its rank, (k + p, 2, 3) its part in the subspaces of each atom and each other one, the rank of its signal beyond what the atoms leave,
    and how many of its singular values are near the edge. It is the last round where ``others`` are given.
    """
    item, change, coefficients = known[tensor], placed(target.delta(tensor)), used[tensor]
    own = _deltas(atoms, tensor)
    square = norm_squared(change) if item.square is None else item.square
    parts = [delta.scaled(float(c)) for delta, c in zip(own, coefficients, strict=True) if delta is not None]
    rest = left_over(change, parts, square)
    limit = None if item.noise else item.most
    signal, leading = _signal_of(rest, item, parts)
    stack = Stack.of([_off(delta, signal, limit) for delta in own])
    weight = 1 / item.noise**2 if item.noise else 1.0
    whole = np.array([weight * norm_squared(delta) if delta is not None else 0.0 for delta in own])
    rank, remaining, excess, near = 0, np.zeros((len(atoms) + len(others or ()), 2, 3)), 0, 0
    if others is not None and rest:
        rank = min(rank_above_noise(rest, square, leading), rest.shape[0] if limit is None else limit)
        assert signal is not None
        most = item.expected(parts)
        remaining, excess = remains(rest, signal, most, own + _deltas(others, tensor)), signal.rank - most
        near = int((signal.values < NEAR * signal.edge).sum())
    return weight * stack.gram(), weight * _correlation(stack, change, rest, parts), whole, rank, remaining, excess, near


def _deltas(atoms: Sequence[TaskVector], tensor: str) -> list[Delta | None]:
    return [atom.delta(tensor) if tensor in atom.shapes else None for atom in atoms]


def _signal_of(rest: Delta | None, item: Looked, components: Sequence[Delta]) -> tuple[Signal | None, Leading | None]:
    """The signal in what is left, and of a wide dense change the triples that it was read off."""
    if rest is None or isinstance(rest, LowRank) or not is_large(rest.shape):
        return (signal_of(rest) if rest else None), None
    return signal_of_wide(rest.values, item.expected(components))


def _correlation(stack: Stack, change: Delta, rest: Delta | None, parts: Sequence[Delta]) -> Matrix:
    """(k,) inner products with the target. Of a difference on disk what is left is at hand, and the components are of low rank."""
    if rest is None or not isinstance(change, Subtracted) or not is_large(change.shape):
        return stack.correlation(change)
    return sum((stack.correlation(part) for part in parts), stack.correlation(rest))


def _off(delta: Delta | None, signal: Signal | None, most: int | None) -> Delta | None:
    """P dW Q, with the signal's subspaces, or their leading directions, projected off on both sides."""
    if delta is None or signal is None:
        return LowRank(delta.b.double(), delta.a.double()) if isinstance(delta, LowRank) else delta
    left, right = signal.left[:, :most], signal.right[:, :most]
    if not isinstance(delta, LowRank):
        values = delta.dense().double()
        values = values - left @ (left.T @ values)
        return Dense(values - (values @ right) @ right.T)
    b, a = delta.b.double(), delta.a.double()
    projected = LowRank(b - left @ (left.T @ b), a - (a @ right) @ right.T)
    # beside noise float32 is enough
    return LowRank(projected.b.float(), projected.a.float()) if signal.noise and is_large(delta.shape) else projected
