"""Where one tensor of an aligned checkpoint comes from: a stored tensor, its rows and columns in another order, and factors undone.

    aligned[i, j] = row_factors[i] (left stored right)[rows[i], columns[j]] column_factors[j]

Whatever is not given is left out of the formula. A vector has rows alone.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from types import EllipsisType

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unmerge.core.errors import BadInput
from unmerge.vectors import Delta, Dense, LowRank, Rows


@dataclass(frozen=True, eq=False)
class TensorMap:
    """The way from a stored tensor to an aligned one.

    Attributes:
        stored: name of the stored tensor.
        left, right: orthogonal matrices on the rows and on the columns, where the residual stream was rotated.
        rows, columns: the stored row of each aligned row, and the same for columns.
        row_factors, column_factors: what stored values are multiplied by.
        values: what stands in for the stored values: a norm's weights before they were folded into the next layer.
    """

    stored: str
    left: Float[Tensor, "rows rows"] | None = None
    right: Float[Tensor, "columns columns"] | None = None
    rows: Int[Tensor, " rows"] | None = None
    columns: Int[Tensor, " columns"] | None = None
    row_factors: Float[Tensor, " rows"] | None = None
    column_factors: Float[Tensor, " columns"] | None = None
    values: Tensor | None = None

    @property
    def is_identity(self) -> bool:
        """Whether the aligned tensor is the stored one."""
        return all(part is None for part in (self.left, self.right, self.rows, self.columns, self.row_factors, self.column_factors, self.values))

    @property
    def is_exact(self) -> bool:
        """Whether aligned values lie on the grid of the stored dtype: they were moved, or multiplied by powers of two."""
        if self.left is not None or self.right is not None:
            return False
        return all(factors is None or bool((torch.frexp(factors.abs())[0] == 0.5).all()) for factors in (self.row_factors, self.column_factors))

    def on_rows(self, order: Int[Tensor, " rows"] | None = None, factors: Float[Tensor, " rows"] | None = None) -> TensorMap:
        """The same, with the aligned rows put in another order and then multiplied."""
        return replace(self, rows=_after(self.rows, order), row_factors=_product(_moved(self.row_factors, order), factors))

    def on_columns(self, order: Int[Tensor, " columns"] | None = None, factors: Float[Tensor, " columns"] | None = None) -> TensorMap:
        """The same for columns."""
        return replace(self, columns=_after(self.columns, order), column_factors=_product(_moved(self.column_factors, order), factors))

    def on_side(self, dim: int, order: Int[Tensor, " n"] | None = None, factors: Float[Tensor, " n"] | None = None) -> TensorMap:
        """The same for rows (0) or columns (1)."""
        return self.on_columns(order, factors) if dim else self.on_rows(order, factors)

    def applied(self, stored: Rows, block: slice | EllipsisType) -> Tensor:
        """Some rows of the aligned tensor; as they are stored where they were only moved, else in float64."""
        if self.values is not None:
            return self.values[block]
        block = slice(None) if isinstance(block, EllipsisType) else block
        if self.left is not None:
            values = self.left.double() @ stored[:].double()
            values = (values if self.rows is None else values[self.rows])[block]
        elif self.rows is not None:
            values = _gathered(stored, self.rows[block])
        else:
            values = stored[block] if stored.shape else stored[...]
        if self.right is not None:
            values = values.double() @ self.right.double()
        if self.columns is not None:
            values = values[:, self.columns]
        if self.row_factors is not None:
            values = values.double() * self.row_factors[block].double().reshape(-1, *[1] * (values.dim() - 1))
        if self.column_factors is not None:
            values = values.double() * self.column_factors.double()
        return values

    def back(self, change: Delta) -> Delta:
        """A change of the aligned tensor as the change of the stored one.

        Raises:
            BadInput: a change of a norm that was folded into other tensors.
        """
        if self.values is not None:
            raise BadInput(
                expected="a component that leaves folded norms as they are",
                found="a change of a norm whose weights were folded into the next layer",
                where="the target",
                tensor=self.stored,
                hint="save the target again with its norms apart",
            )
        if isinstance(change, LowRank):
            b = _side_back(change.b, self.rows, self.row_factors, self.left)
            return LowRank(b, _side_back(change.a.T, self.columns, self.column_factors, None if self.right is None else self.right.T).T)
        values = _side_back(change.dense(), self.rows, self.row_factors, self.left)
        if values.dim() == 2:
            values = _side_back(values.T, self.columns, self.column_factors, None if self.right is None else self.right.T).T
        return Dense(values.contiguous())


@dataclass(frozen=True)
class AlignedRows:
    """An aligned tensor that is read by rows, when they are asked for.

    Attributes:
        stored: the tensor in its file.
        way: from there.
    """

    stored: Rows
    way: TensorMap

    @property
    def shape(self) -> torch.Size:
        return torch.Size(self.stored.shape)

    @property
    def dtype(self) -> torch.dtype:
        """The stored one where the values lie on its grid."""
        if self.way.values is not None:
            return self.way.values.dtype
        return self.stored.dtype if self.way.is_exact or self.stored.dtype == torch.float64 else torch.float32

    @property
    def is_huge(self) -> bool:
        return not isinstance(self.stored, Tensor) and self.stored.is_huge

    def __getitem__(self, block: slice | EllipsisType) -> Tensor:
        return self.way.applied(self.stored, block).to(self.dtype)


def _after(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    """Two orders, one after the other."""
    return second if first is None else first if second is None else first[second]


def _moved(values: Tensor | None, order: Tensor | None) -> Tensor | None:
    return values if values is None or order is None else values[order]


def _product(one: Tensor | None, two: Tensor | None) -> Tensor | None:
    return one if two is None else two if one is None else one * two


def _gathered(stored: Rows, wanted: Int[Tensor, " rows"]) -> Tensor:
    """Rows in any order; neighbours are read together, and all rows at once where most are wanted."""
    if isinstance(stored, Tensor) or 2 * len(wanted) >= stored.shape[0]:
        return stored[:][wanted]
    ascending = wanted.sort()
    found = torch.empty(len(wanted), *stored.shape[1:], dtype=stored.dtype)
    starts = [0, *(torch.nonzero(ascending.values.diff() != 1)[:, 0] + 1).tolist(), len(wanted)]
    for start, end in itertools.pairwise(starts):
        if end > start:
            first = int(ascending.values[start])
            found[ascending.indices[start:end]] = stored[first : first + end - start]
    return found


def _side_back(values: Tensor, order: Tensor | None, factors: Tensor | None, rotation: Tensor | None) -> Tensor:
    """The first dimension of a change, from aligned to stored."""
    if factors is not None:
        values = values / factors.to(values.dtype).reshape(-1, *[1] * (values.dim() - 1))
    if order is not None:
        moved = torch.zeros_like(values)
        moved[order] = values
        values = moved
    return values if rotation is None else rotation.T.to(values.dtype) @ values
