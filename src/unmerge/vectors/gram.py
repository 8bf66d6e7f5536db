"""Inner products of task vectors over all weights, without expanding them.

    <B1 A1, B2 A2> = sum((B1^T B2) o (A1 A2^T))        low-rank with low-rank
    <B A, T>       = sum((B^T T) o A)                  low-rank with dense

The low-rank atoms of a tensor are stacked, so its Gram matrix is one product of each side. A least-squares problem over
billions of weights then has the size of the dictionary. A dense target is converted block by block.

Products over more than LARGE weights are taken in float32 and added up in float64, which takes half as long as float64 throughout. Measured
at the shapes of a 7B model, against float64: 1e-8 ||v|| ||t|| with a checkpoint, 2e-6 ||v_i|| ||v_j|| between adapters. Several tensors
are read and worked on at once.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from unmerge.vectors.delta import Delta, Dense, LowRank, Subtracted, block_of, is_large, loaded, norm_squared, row_slices, square_of
from unmerge.vectors.device import device_for, placed
from unmerge.vectors.source import Skipped, TaskVector, common
from unmerge.vectors.threads import each_tensor

#: entries of a dense tensor converted at a time (32 MiB in float64)
_BLOCK = 1 << 22
#: the upper half of a symmetric product is made in so many parts
_PARTS = 4


@dataclass(frozen=True)
class Gram:
    """Inner products of n atoms and a target, tensor by tensor.

    Attributes:
        atoms: the names of the atoms, n of them.
        tensors: the names of the tensors, m of them.
        gram: (m, n, n), between atoms.
        correlation: (m, n), of each atom with the target.
        norm_squared: (m,), of the target.
        entries: (m,), over how many weights.
        skipped: tensors that the target or an atom leaves out, and so are left out for all.
    """

    atoms: tuple[str, ...]
    tensors: tuple[str, ...]
    gram: NDArray[np.float64]
    correlation: NDArray[np.float64]
    norm_squared: NDArray[np.float64]
    entries: NDArray[np.int64]
    skipped: tuple[Skipped, ...] = ()

    def only(self, rows: Sequence[int]) -> Gram:
        """Some of the tensors, by place."""
        chosen = list(rows)
        tensors = tuple(self.tensors[row] for row in chosen)
        return Gram(self.atoms, tensors, self.gram[chosen], self.correlation[chosen], self.norm_squared[chosen], self.entries[chosen], self.skipped)

    def without(self, names: Collection[str]) -> Gram:
        """The same without some atoms."""
        kept = [atom for atom, name in enumerate(self.atoms) if name not in names]
        chosen = tuple(self.atoms[atom] for atom in kept)
        return replace(self, atoms=chosen, gram=self.gram[:, kept][:, :, kept], correlation=self.correlation[:, kept])


class Weights(ABC):
    """Which weights of a tensor count."""

    @abstractmethod
    def products(self, tensor: str, atoms: Sequence[Delta | None], target: Delta | None) -> tuple[NDArray[np.float64], int]:
        """Inner products over the weights that count.

        Args:
            tensor: its name.
            atoms: the change by each of n atoms, None where it leaves the tensor as it is.
            target: the target's, or None.

        Returns:
            ((n + 1, n + 1) inner products, the target last; how many weights count).
        """


@dataclass(frozen=True)
class AllWeights(Weights):
    """All of them, nothing expanded.

    Attributes:
        known: inner products between the atoms that were taken before, (n, n) by tensor.
    """

    known: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)

    def products(self, tensor: str, atoms: Sequence[Delta | None], target: Delta | None) -> tuple[NDArray[np.float64], int]:
        n, stack = len(atoms), Stack.of([placed(atom) if atom else None for atom in atoms])
        products = np.zeros((n + 1, n + 1))
        products[:n, :n] = self.known[tensor] if tensor in self.known else stack.gram()
        if target is not None:
            correlation, products[n, n] = stack.with_target(placed(target))
            products[:n, n] = products[n, :n] = correlation
        return products, max(math.prod(delta.shape) for delta in (target, *atoms) if delta is not None)


ALL_WEIGHTS = AllWeights()


def gram(
    atoms: Sequence[TaskVector], target: TaskVector, watch: Callable[[Iterable[str]], Iterable[str]] = iter, weights: Weights = ALL_WEIGHTS
) -> Gram:
    """Read every tensor that the target or an atom changes, once, and take all inner products.

    Args:
        atoms: n task vectors.
        target: the task vector to be explained.
        watch: wraps the loop over tensors, for a progress bar.
        weights: which weights count; ``restricted`` has others than all.

    Raises:
        BadInput: two of them give a tensor different shapes.
    """
    vectors = (target, *atoms)
    shapes, skipped = common(vectors)
    tensors = tuple(shapes)
    n, m = len(atoms), len(tensors)
    products, entries = np.zeros((m, n + 1, n + 1)), np.zeros(m, dtype=np.int64)

    def taken(tensor: str) -> tuple[NDArray[np.float64], int]:
        last, *changes = (vector.delta(tensor) if tensor in vector.shapes else None for vector in vectors)
        if any(isinstance(change, Dense | Subtracted) for change in changes):  # each is met by all others
            last, *changes = (loaded(change) if change else None for change in (last, *changes))
        return weights.products(tensor, changes, last)

    for row, (_, found) in enumerate(zip(watch(tensors), each_tensor(tensors, shapes, taken), strict=True)):
        products[row], entries[row] = found
    names = tuple(atom.name for atom in atoms)
    return Gram(names, tensors, products[:, :n, :n], products[:, :n, n], products[:, n, n], entries, skipped)


@dataclass(frozen=True)
class Stack:
    """All atoms' changes of one tensor: the low-rank ones side by side, the dense ones as they are.

    Attributes:
        count: the number of atoms, n.
        low: low-rank changes by atom.
        dense: dense changes by atom.
    """

    count: int
    low: dict[int, LowRank]
    dense: dict[int, Dense | Subtracted]

    @staticmethod
    def of(deltas: Sequence[Delta | None]) -> Stack:
        """Stack the atoms' changes; None where an atom leaves the tensor as it is."""
        low = {atom: delta for atom, delta in enumerate(deltas) if isinstance(delta, LowRank)}
        return Stack(len(deltas), low, {atom: delta for atom, delta in enumerate(deltas) if isinstance(delta, Dense | Subtracted)})

    @cached_property
    def b(self) -> Float[Tensor, "out directions"]:
        """(out, R) the B factors side by side."""
        return torch.cat([delta.b.to(self._device, self._dtype) for delta in self.low.values()], dim=1)

    @cached_property
    def a(self) -> Float[Tensor, "directions into"]:
        """(R, in) the A factors one below the other."""
        return torch.cat([delta.a.to(self._device, self._dtype) for delta in self.low.values()], dim=0)

    @cached_property
    def _dtype(self) -> torch.dtype:
        """float32 for products over many weights, unless a factor has more; float64 for few, where it costs nothing."""
        few = not all(is_large(delta.shape) for delta in self.low.values())
        return torch.float64 if few or any(torch.float64 in (delta.b.dtype, delta.a.dtype) for delta in self.low.values()) else torch.float32

    @cached_property
    def _device(self) -> torch.device:
        """Where the factors are put side by side, and met by dense changes."""
        return device_for(next(iter(self.low.values())).shape)

    def gram(self) -> NDArray[np.float64]:
        """(n, n) inner products between the atoms."""
        products = np.zeros((self.count, self.count))
        if self.low:
            products += self._between_low_rank(self.b, self.a)
        dense = sorted(self.dense)
        for place, atom in enumerate(dense):
            products[atom] += (across := self._with_low_rank(self.dense[atom])[0])
            products[:, atom] += across
            for other in dense[place:]:
                products[atom, other] = products[other, atom] = _dot(self.dense[atom], self.dense[other])
        return products

    def correlation(self, target: Delta) -> NDArray[np.float64]:
        """(n,) inner products of the atoms with one change of the same tensor."""
        return self.with_target(target)[0]

    def with_target(self, target: Delta) -> tuple[NDArray[np.float64], float]:
        """((n,) inner products of the atoms with one change of the same tensor, its squared norm), in one pass over it."""
        if not isinstance(target, LowRank):
            products, square = self._with_low_rank(target)
            for atom, delta in self.dense.items():
                products[atom] = _dot(delta, target)
            return products, square
        products = np.zeros(self.count)
        b, a = target.b.to(self._dtype), target.a.to(self._dtype)
        for atom, low in self.low.items():  # one by one: putting them side by side would take longer than the products
            products[atom] = float(((low.b.to(self._dtype).T @ b).double() * (low.a.to(self._dtype) @ a.T)).sum())
        alone = Stack.of([target])
        for atom, delta in self.dense.items():
            products[atom] = float(alone._with_low_rank(delta)[0][0])
        return products, norm_squared(target)

    def _between_low_rank(self, b: Tensor, a: Tensor) -> NDArray[np.float64]:
        """(n, n), of a symmetric matrix the upper half: columns in a few parts, each with the rows up to its end."""
        size, owners = b.shape[1], self._owners()
        products = np.zeros((size, self.count))
        for start in range(0, size, step := max(1, -(-size // _PARTS))):
            end = min(start + step, size)
            part = ((b[:, :end].T @ b[:, start:end]).double() * (a[:end] @ a[start:end].T)).cpu().numpy()
            products[:end] += part @ owners[start:end]
            products[start:end] += part[:start].T @ owners[:start]
        return np.asarray(owners.T @ products)

    def _with_low_rank(self, target: Dense | Subtracted) -> tuple[NDArray[np.float64], float]:
        """((n,) inner products of the low-rank atoms with a dense change, 0 for dense atoms; its squared norm).

        A few rows of it at a time: rows x A^T is a matrix product of all atoms at once, and sum(rows A^T o B) closes it.
        """
        if not self.low:
            return np.zeros(self.count), norm_squared(target)
        along, square = torch.zeros(self.b.shape[1], dtype=torch.float64, device=self._device), 0.0
        for block in row_slices(target.shape, _BLOCK):
            values = block_of(target, block).to(self.a)
            square += square_of(values)
            along += (values @ self.a.T).mul_(self.b[block]).sum(0)
        return np.asarray(self._owners().T @ along.cpu().numpy(), dtype=np.float64), square

    def _owners(self) -> NDArray[np.float64]:
        """(R, n) indicator: which atom a direction belongs to."""
        return np.eye(self.count)[[atom for atom, delta in self.low.items() for _ in range(delta.rank)]]


def _dot(left: Dense | Subtracted, right: Dense | Subtracted) -> float:
    """<left, right> in float64, converted block by block."""
    total = 0.0
    for block in row_slices(left.shape, _BLOCK):
        values = block_of(left, block).double().flatten()
        total += float(values @ block_of(right, block).to(values).flatten())
    return total
