"""What PEFT makes of a call, beside the target: factor by factor, or product by product where an SVD left them free."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch

from unmerge.recipes.combinations.call import Call
from unmerge.recipes.combinations.case import AdapterCase
from unmerge.recipes.combinations.standin import combined
from unmerge.recipes.factors import Pair
from unmerge.recipes.proof import Compared, counted, gathered
from unmerge.recipes.record import KindProof, Proof
from unmerge.vectors import LowRank
from unmerge.vectors.delta import norm_squared

#: an SVD in a dtype moves what it makes by so many units of rounding of the largest singular value
_UNITS = 16

Watch = Callable[[Iterable[str]], Iterable[str]]


@dataclass(frozen=True)
class Made:
    """A call as it was run: the dtype that PEFT held the atoms in, None for their own."""

    call: Call
    loaded: torch.dtype | None = torch.float32

    @property
    def method(self) -> str:
        """As in the record."""
        return f"peft:{self.call.combination_type}"

    @property
    def parameters(self) -> dict[str, Any]:
        """As in the record: weights by atom, then what else was given."""
        given = self.call.arguments()
        return {
            "models": {atom: {"weight": weight} for atom, weight in zip(given.pop("adapters"), given.pop("weights"), strict=True)},
            **{name: value for name, value in given.items() if name != "combination_type"},
        }

    @property
    def free(self) -> bool:
        """Whether the factors are known up to signs only."""
        return self.call.truncates

    def pair(self, case: AdapterCase, tensor: str) -> Pair:
        """The factors that PEFT makes of one tensor, in the target's dtype; zeros where no adapter changes it."""
        names = dict.fromkeys(self.call.adapters)
        configs, pairs = {name: case.atoms[name].config for name in names}, {name: case.pair(name, tensor) for name in names}
        wanted = case.wanted(tensor)
        if all(pair is None for pair in pairs.values()):
            return Pair(torch.zeros_like(wanted.b), torch.zeros_like(wanted.a), wanted.scale)
        made = combined(self.call, configs, pairs, tensor.removesuffix(".weight"), self.loaded)
        return Pair(made.b.to(wanted.b.dtype), made.a.to(wanted.a.dtype), made.scale)


def prove(case: AdapterCase, made: Callable[[str], Pair], free: bool, tensors: Iterable[str], slack: float = 0.0) -> Proof:
    """Compare what was made with the target.

    Args:
        case: the target.
        made: the factors that were made, by tensor.
        free: products count, since factors are known up to the sign of each direction only.
        tensors: those that are compared.
        slack: factors that differ by less than this share of the largest one count as identical.
    """
    return gathered((tensor, _compared(made(tensor), case.wanted(tensor), free, slack)) for tensor in tensors)


def _compared(ours: Pair, theirs: Pair, free: bool, slack: float) -> Compared:
    largest = theirs.change.dense() if free else torch.cat([theirs.a.flatten(), theirs.b.flatten()])
    return Compared(
        counted=_products(ours, theirs) if free else _factors(ours, theirs, slack),
        largest_change=float(largest.abs().max()),
        left=norm_squared(LowRank(torch.cat([theirs.change.b, -ours.change.b], 1), torch.cat([theirs.change.a, ours.change.a]))),
        norm=norm_squared(theirs.change),
    )


def _factors(ours: Pair, theirs: Pair, slack: float) -> KindProof:
    """Entries of factors; those count that are not zero in either. Factors of other shapes have nothing in common."""
    if ours.a.shape != theirs.a.shape:
        return KindProof(changed=theirs.a.numel() + theirs.b.numel(), identical=0, largest_difference=float(theirs.b.abs().max()))
    made, wanted = (torch.cat([pair.a.flatten(), pair.b.flatten()]) for pair in (ours, theirs))
    off = made.double() - wanted.double()
    near = [
        (one.double() - two.double()).abs().flatten() <= slack * two.double().abs().max() for one, two in ((ours.a, theirs.a), (ours.b, theirs.b))
    ]
    return counted((made != 0) | (wanted != 0), (made == wanted) | (torch.cat(near) if slack else False), off)


def _products(ours: Pair, theirs: Pair) -> KindProof:
    """Entries of dW; the same within what the SVD and the rounding of factors to their dtype may move."""
    ours, theirs = (Pair(pair.b, pair.a, 1.0) for pair in (ours, theirs))  # the scale is told apart from the factors
    made, wanted = ours.change.dense(), theirs.change.dense()
    size = theirs.change.b.abs() @ theirs.change.a.abs()
    largest = theirs.change.svd()[1].max()
    slack = 2 * torch.finfo(theirs.a.dtype).eps * size + _UNITS * torch.finfo(torch.float32).eps / 2 * largest
    return counted(torch.ones_like(wanted, dtype=torch.bool), (made - wanted).abs() <= slack, made - wanted)
