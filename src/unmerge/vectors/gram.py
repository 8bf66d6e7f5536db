"""Inner products of task vectors over all weights, without expanding them.

    <B1 A1, B2 A2> = sum((B1^T B2) o (A1 A2^T))        low-rank with low-rank
    <B A, T>       = sum((B^T T) o A)                  low-rank with dense

The low-rank atoms of a tensor are stacked, so its Gram matrix is one product of each side. A least-squares problem over
billions of weights then has the size of the dictionary. Sums are in float64; a dense target is converted
block by block.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from unmerge.vectors.delta import Delta, Dense, LowRank, norm_squared
from unmerge.vectors.source import Skipped, TaskVector, common

#: entries of a dense tensor converted to float64 at a time (32 MiB)
_BLOCK = 1 << 22


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


class AllWeights(Weights):
    """All of them, nothing expanded."""

    def products(self, tensor: str, atoms: Sequence[Delta | None], target: Delta | None) -> tuple[NDArray[np.float64], int]:
        n, stack = len(atoms), Stack.of(atoms)
        products = np.zeros((n + 1, n + 1))
        products[:n, :n] = stack.gram()
        if target is not None:
            products[:n, n] = products[n, :n] = stack.correlation(target)
            products[n, n] = norm_squared(target)
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
    for row, tensor in enumerate(watch(tensors)):
        last, *changes = (vector.delta(tensor) if tensor in vector.shapes else None for vector in vectors)
        products[row], entries[row] = weights.products(tensor, changes, last)
    names = tuple(atom.name for atom in atoms)
    return Gram(names, tensors, products[:, :n, :n], products[:, :n, n], products[:, n, n], entries, skipped)


@dataclass(frozen=True)
class Stack:
    """All atoms' changes of one tensor: the low-rank ones side by side, the dense ones as they are.

    Attributes:
        count: the number of atoms, n.
        b: (out, R), the B factors side by side, or None without low-rank atoms.
        a: (R, in), the A factors one below the other.
        owner: (R,), the atom that each of the R directions belongs to.
        dense: dense changes by atom.
    """

    count: int
    b: Float[Tensor, "out directions"] | None
    a: Float[Tensor, "directions in"] | None
    owner: tuple[int, ...]
    dense: dict[int, Tensor]

    @staticmethod
    def of(deltas: Sequence[Delta | None]) -> Stack:
        """Stack the atoms' changes; None where an atom leaves the tensor as it is."""
        low = [(atom, delta) for atom, delta in enumerate(deltas) if isinstance(delta, LowRank)]
        dense = {atom: delta.values for atom, delta in enumerate(deltas) if isinstance(delta, Dense)}
        if not low:
            return Stack(len(deltas), None, None, (), dense)
        b = torch.cat([delta.b.double() for _, delta in low], dim=1)
        a = torch.cat([delta.a.double() for _, delta in low], dim=0)
        owner = tuple(atom for atom, delta in low for _ in range(delta.rank))
        return Stack(len(deltas), b, a, owner, dense)

    def gram(self) -> NDArray[np.float64]:
        """(n, n) inner products between the atoms."""
        products = np.zeros((self.count, self.count))
        if self.b is not None and self.a is not None:
            products += self._sum_by_owner((self.b.T @ self.b) * (self.a @ self.a.T))
        dense = sorted(self.dense)
        for place, atom in enumerate(dense):
            products[atom] += (across := self._with_low_rank(self.dense[atom]))
            products[:, atom] += across
            for other in dense[place:]:
                products[atom, other] = products[other, atom] = _dot(self.dense[atom], self.dense[other])
        return products

    def correlation(self, target: Delta) -> NDArray[np.float64]:
        """(n,) inner products of the atoms with one change of the same tensor."""
        if isinstance(target, Dense):
            products = self._with_low_rank(target.values)
            for atom, values in self.dense.items():
                products[atom] = _dot(values, target.values)
            return products
        products = np.zeros(self.count)
        b, a = target.b.double(), target.a.double()
        if self.b is not None and self.a is not None:
            products += self._owners().T @ ((self.b.T @ b) * (self.a @ a.T)).sum(1).numpy()
        for atom, values in self.dense.items():
            products[atom] = float(_project(b, values).mul_(a).sum())
        return products

    def _with_low_rank(self, values: Tensor) -> NDArray[np.float64]:
        """(n,) inner products of the low-rank atoms with a dense tensor; 0 for dense atoms."""
        if self.b is None or self.a is None:
            return np.zeros(self.count)
        products = _project(self.b, values).mul_(self.a).sum(1)
        return np.asarray(self._owners().T @ products.numpy(), dtype=np.float64)

    def _owners(self) -> NDArray[np.float64]:
        """(R, n) indicator: which atom a direction belongs to."""
        return np.eye(self.count)[list(self.owner)]

    def _sum_by_owner(self, products: Tensor) -> NDArray[np.float64]:
        owners = self._owners()
        return np.asarray(owners.T @ products.numpy() @ owners, dtype=np.float64)


def _project(b: Float[Tensor, "out rank"], values: Float[Tensor, "out in"]) -> Float[Tensor, "rank in"]:
    """B^T T in float64, T converted in blocks of rows."""
    result = b.new_zeros(b.shape[1], values.shape[1])
    step = max(1, _BLOCK // max(1, values.shape[1]))
    for start in range(0, values.shape[0], step):
        rows = slice(start, start + step)
        result.addmm_(b[rows].T, values[rows].double())
    return result


def _dot(left: Tensor, right: Tensor) -> float:
    """<left, right> in float64, converted block by block."""
    left, right = left.reshape(-1), right.reshape(-1)
    blocks = range(0, left.numel(), _BLOCK)
    return sum(float(left[start : start + _BLOCK].double() @ right[start : start + _BLOCK].double()) for start in blocks)
