"""Is it this very atom, or a relative of it: another checkpoint of its training, another seed of the same data, a sibling?

Present and identical are two claims. A relative shares most of an atom's directions, so it passes the test of presence; but it is not the atom, and
what the atom leaves of it, T - c V, lies along the atom:

    V' = (B + dB)(A + dA)      V' - V = dB A + B dA + ...      in the row space of A, and in the column space of B

So what is left is looked at in the atom's own subspaces: with U and W orthonormal bases of its column and row space,

    left = ||U^T E||^2,   right = ||E W||^2,   core = ||U^T E W||^2      E: what is left, less k of its signal's directions

k is the rank that the components leave of the target's signal, which is what something unknown takes up: if the atom is in the target,
subtracting it takes its rank away (Wedderburn 1934), and beyond those k directions there is noise. A relative leaves more than k. Which
directions are the unknown's then is not known: where many more are left, those that lie least along the atom are taken for it, else the
strongest ones. Noise whose entries have independent signs has the expectation sum(leverage o E^2) in each of the three, which is taken
off. Over c^2 ||V||^2 they are shares of what the atom contributes: 0 where it is this atom, about 1 / cos^2 - 1 for a relative at cosine cos.

An unknown part that shares the atom's initialisation lies in its row space too, and would be blamed there. So a relative is claimed where *both*
sides show one, and the atom itself where *neither* does; the rest is undecided.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

from unmerge.certificate.spectrum import Signal
from unmerge.vectors import Delta, LowRank, block_of, norm_squared, row_slices

Matrix = NDArray[np.float64]

#: directions of an atom that are looked at; the leading one holds .7 to .9 of a real adapter's square
DIRECTIONS = 16
#: many more directions are left where their median over tensors exceeds so many, and this share of those of the component that shows fewest. Of
#: the very atoms up to 2 are left (the edge of the noise is not sharp), of relatives as many as they have
SPARE, OF_SHOWN = 1.0, 0.3
#: an atom is claimed where what is left of it is at most this share of what it contributes
EXACT = 1e-4
#: a relative is claimed where it is at least this share
RELATIVE = 1e-3
#: and where so many times as much is left along it as along atoms that are not in the target (median)
STANDS_OUT = 3.0
#: share of the changed weights that the very atoms give
IDENTICAL = 0.98
#: level of both claims, one-sided
LEVEL = 1e-4
#: figures of what is left: factors that were stored in 16 bits and merged in 32 differ by this share
FIGURES = 5e-6


class Identity(StrEnum):
    """What a component is of the atom that it is named after."""

    EXACT = "exact"
    RELATIVE = "relative"
    UNDECIDED = "undecided"


@dataclass(frozen=True)
class Likeness:
    """How like a component is to its atom.

    Attributes:
        identity: the claim.
        deviation: share of what the atom contributes that is left along it: the larger of both sides.
        core: the same within both subspaces at once.
        p_value: of the hypothesis that it is a relative, which differs by EXACT or more.
    """

    identity: Identity
    deviation: float
    core: float
    p_value: float


#: of an atom that shows in the target's subspaces although nothing can be subtracted of it
RELATED = Likeness(Identity.RELATIVE, np.inf, 0.0, 1.0)


def likeness_by_weights(identical: float, rounding_share: float) -> Likeness:
    """Where rounding and the components explain a target: the atoms themselves give its very weights, relatives give others.

    Args:
        identical: the share of the changed weights that a merge of the components gives exactly.
        rounding_share: what rounding leaves, of the target's squared norm. Where it is as good as nothing, so is what the components leave.
    """
    exact = identical >= IDENTICAL or rounding_share <= EXACT
    return Likeness(Identity.EXACT if exact else Identity.UNDECIDED, 1 - identical, 0.0, 0.0 if exact else 1 - identical)


def remains(rest: Delta, signal: Signal, most: int, atoms: Sequence[Delta | None]) -> Float[NDArray[np.float64], "n 2 3"]:
    """What is left of one tensor in the own subspaces of some atoms, beyond the noise and the unknown: left, right and core.

    Twice: the strongest directions taken for the unknown's, and those that lie least along the atom.

    Of an atom without a low rank all that is left is taken for its own. An atom that leaves the tensor alone has zeros.

    Args:
        rest: what is left.
        signal: its signal.
        most: k, how many directions of it may be unknown.
        atoms: n changes of the tensor, or None.
    """
    result = np.zeros((len(atoms), 2, 3))
    low = {place: _spaces(delta) for place, delta in enumerate(atoms) if isinstance(delta, LowRank)}
    if any(delta is not None and not isinstance(delta, LowRank) for delta in atoms):
        result[[place for place, delta in enumerate(atoms) if delta is not None and place not in low]] = norm_squared(rest)
    if not low:
        return result
    columns, rows = (torch.cat([space[side] for space in low.values()], 1) for side in (0, 1))
    sides = _Sides.of(rest, signal.left, signal.right, columns, rows)
    ends = np.cumsum([0, *(space[0].shape[1] for space in low.values())])
    for place, start, end in zip(low, ends[:-1], ends[1:], strict=True):
        own = slice(start, end)
        below = sides.beyond_noise(own) if signal.noise else sides.energy(own)
        result[place] = np.add(below, _above(signal, most, columns[:, own], rows[:, own]))
    return result


def _above(signal: Signal, most: int, columns: Float[Tensor, "out r"], rows: Float[Tensor, "into r"]) -> Float[NDArray[np.float64], "2 3"]:
    """Left, right and core of the signal's directions beyond those that may be unknown, as ``remains`` takes them."""
    if signal.rank <= most:
        return np.zeros((2, 3))
    left, right = columns.T @ signal.left, rows.T @ signal.right
    along = torch.maximum(left.square().sum(0), right.square().sum(0))
    result = []
    for order in (torch.arange(signal.rank), along.argsort()):
        kept = order[most:]
        strength = signal.values[kept]
        core = (left[:, kept] * strength) @ right[:, kept].T
        sides = [(side[:, kept].square().sum(0) * strength.square()).sum() for side in (left, right)]
        result.append([float(side) for side in (*sides, core.square().sum())])
    return np.array(result)


def _spaces(delta: LowRank) -> tuple[Float[Tensor, "out r"], Float[Tensor, "into r"]]:
    left, _, right = delta.svd(DIRECTIONS)
    return left, right.T


@dataclass(frozen=True)
class _Sides:
    """Products of what is left, E (out, into), with R directions on either side.

    Attributes:
        columns, rows: (out, R) and (into, R) the directions.
        below: (R, into) columns^T E.
        beside: (out, R) E rows.
        by_row, by_column: (out,) and (into,) sums of E^2.
    """

    columns: Float[Tensor, "out r"]
    rows: Float[Tensor, "into r"]
    below: Float[Tensor, "r into"]
    beside: Float[Tensor, "out r"]
    by_row: Float[Tensor, " out"]
    by_column: Float[Tensor, " into"]

    @staticmethod
    def of(rest: Delta, left: Tensor, right: Tensor, columns: Tensor, rows: Tensor) -> _Sides:
        if isinstance(rest, LowRank):
            b, a = rest.b.double(), rest.a.double()
            b, a = b - left @ (left.T @ b), a - (a @ right) @ right.T
            nothing = [torch.zeros(side, dtype=torch.float64) for side in rest.shape]
            return _Sides(columns, rows, (columns.T @ b) @ a, b @ (a @ rows), *nothing)
        out, into = rest.shape
        onto = torch.zeros(left.shape[1], into, dtype=torch.float64)
        for block in row_slices(rest.shape):
            onto += left[block].T @ block_of(rest, block).double().cpu()
        below, beside = torch.zeros(columns.shape[1], into, dtype=torch.float64), torch.zeros(out, rows.shape[1], dtype=torch.float64)
        by_row, by_column = torch.zeros(out, dtype=torch.float64), torch.zeros(into, dtype=torch.float64)
        for block in row_slices(rest.shape):
            values = block_of(rest, block).double().cpu() - left[block] @ onto
            values -= (values @ right) @ right.T
            below += columns[block].T @ values
            beside[block] = values @ rows
            square = values.square()
            by_row[block], by_column = square.sum(1), by_column + square.sum(0)
        return _Sides(columns, rows, below, beside, by_row, by_column)

    def energy(self, own: slice) -> tuple[float, float, float]:
        """The squared norms on the left, on the right, and on both sides, of one atom's directions."""
        core = self.columns[:, own].T @ self.beside[:, own]
        return float(self.below[own].square().sum()), float(self.beside[:, own].square().sum()), float(core.square().sum())

    def beyond_noise(self, own: slice) -> tuple[float, float, float]:
        """The same, less what independent signs of the entries would leave there."""
        left, right, core = self.energy(own)
        on_rows = float(self.columns[:, own].square().sum(1) @ self.by_row)
        on_columns = float(self.rows[:, own].square().sum(1) @ self.by_column)
        total = float(self.by_row.sum())
        return left - on_rows, right - on_columns, core - (on_rows * on_columns / total if total else 0.0)


def leaves_more(excess: NDArray[np.int64], shown: NDArray[np.int64]) -> bool:
    """Whether many more directions are left than the components leave if they are their very atoms.

    Args:
        excess: (m,) how many more are left in each tensor.
        shown: (m, k) how many directions each component has above the noise.
    """
    fewest = float(np.median(shown, 0).min()) if shown.size else 0.0
    return bool(len(excess)) and float(np.median(excess)) > SPARE + OF_SHOWN * fewest


def likeness(left: Matrix, sizes: Matrix, low_rank: bool, covered: bool = False, elsewhere: Matrix | None = None) -> Likeness:
    """What m tensors say of one component.

    Args:
        left: (m, 3) from ``remains``.
        sizes: (m,) c^2 ||V||^2.
        low_rank: whether the atom has one; of an atom without, what is left says nothing of a relative.
        covered: whether what is left covers the atom, so that nothing of it could be told from the unknown: then it is not claimed.
        elsewhere: (m, p, 3) the same as ``left`` of p atoms that are not in the target. A relative leaves more along its atom than along others; what
            further training leaves lies along all of them.
    """
    if not sizes.sum() > 0:
        return Likeness(Identity.UNDECIDED, np.inf, np.inf, 1.0)
    shares = left.sum(0) / sizes.sum()
    error = _error(left[:, :2], sizes)
    count = max(int((sizes > 0).sum()), 2)
    reach = stats.t.isf(LEVEL, count - 1) * error + FIGURES
    high, low = float((shares[:2] + reach).max()), float((shares[:2] - reach).min())
    if high <= EXACT and not covered:
        identity = Identity.EXACT
    elif low_rank and (low > RELATIVE or _mostly(left, sizes)) and _stands_out(left, sizes, elsewhere):
        identity = Identity.RELATIVE
    else:
        identity = Identity.UNDECIDED
    side = int(np.argmax(shares[:2]))
    p_value = float(stats.t.sf((EXACT - shares[side]) / max(error[side], FIGURES), count - 1))
    return Likeness(identity, max(float(shares[side]), 0.0), max(float(shares[2]), 0.0), 1.0 if covered else p_value)


def _stands_out(left: Matrix, sizes: Matrix, elsewhere: Matrix | None) -> bool:
    """Whether more is left along an atom, on both sides, than along others."""
    if elsewhere is None or not elsewhere.shape[1]:
        return True
    told = sizes > 0
    own, others = left[told, :2].sum(0), np.median(elsewhere[told, :, :2].sum(0), 0)
    return bool((own > STANDS_OUT * others).all())


def _mostly(left: Matrix, sizes: Matrix) -> bool:
    """Whether so many tensors show a relative on both sides that it is no chance (sign test): shares may scatter widely over tensors."""
    told = sizes > 0
    both = int((left[told, :2].min(1) > RELATIVE * sizes[told]).sum())
    return bool(stats.binom.sf(both - 1, int(told.sum()), 0.5) <= LEVEL)


def _error(left: Matrix, sizes: Matrix) -> Matrix:
    """(s,) the error of sum(left) / sum(sizes), leaving one tensor out at a time."""
    m = len(sizes)
    if m < 2:
        return np.full(left.shape[1], np.inf)
    rest = sizes.sum() - sizes
    without = (left.sum(0) - left) / np.where(rest > 0, rest, np.inf)[:, None]
    return np.asarray(np.sqrt((m - 1) / m * ((without - without.mean(0)) ** 2).sum(0)))
