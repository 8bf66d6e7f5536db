"""cat: the rows of w_i s_i A_i one below the other, the columns of B_i side by side; dW is the weighted sum, exactly.

What gives it away: blocks of B are the atoms' own, to the last bit, and those of A are multiples of theirs by one factor in all
modules. An adapter that leaves a module as it is has no block there; what is left over is zero.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from unmerge.recipes.case import half_spacing
from unmerge.recipes.combinations.call import Call
from unmerge.recipes.combinations.case import AdapterCase
from unmerge.recipes.combinations.numbers import typed


def candidates(case: AdapterCase) -> list[Call]:
    """The call, if the blocks of every module are atoms."""
    blocks: dict[str, list[tuple[str, int]]] = {tensor: found for tensor in case.tensors if (found := _blocks(case, tensor)) is not None}
    if len(blocks) < len(case.tensors):
        return []
    order = max((tuple(atom for atom, _ in found) for found in blocks.values()), key=len)
    if len(order) < 2:
        return []
    exact = [_weight(case, atom, [(tensor, at) for tensor, found in blocks.items() for name, at in found if name == atom]) for atom in order]
    short = [typed(weight, 0.0, case.dtype) for weight in exact]
    return [Call(order, tuple(weights), "cat") for weights in (short, exact)]


def _blocks(case: AdapterCase, tensor: str) -> list[tuple[str, int]] | None:
    """Which atom begins at which row, from the first row to the last one that is not zero."""
    wanted, at, found = case.wanted(tensor), 0, []
    used = int(wanted.b.any(0).nonzero().max()) + 1 if bool(wanted.b.any()) else 0
    while at < used:
        atom = next((atom for atom in case.atoms if _begins(case, tensor, atom, at)), None)
        if atom is None:
            return None
        found.append((atom, at))
        at += _rank(case, tensor, atom)
    return found


def _begins(case: AdapterCase, tensor: str, atom: str, at: int) -> bool:
    pair, wanted = case.pair(atom, tensor), case.wanted(tensor)
    return pair is not None and bool(pair.b.any()) and torch.equal(wanted.b[:, at : at + pair.b.shape[1]], pair.b.to(wanted.b.dtype))


def _rank(case: AdapterCase, tensor: str, atom: str) -> int:
    pair = case.pair(atom, tensor)
    return 0 if pair is None else pair.b.shape[1]


def _weight(case: AdapterCase, atom: str, places: Sequence[tuple[str, int]]) -> float:
    """The factor between blocks of A and the atom's own: every entry says in which interval it lies."""
    low, high = -torch.inf, torch.inf
    for tensor, at in places:
        pair = case.pair(atom, tensor)
        assert pair is not None
        block = case.wanted(tensor).a[at : at + len(pair.a)]
        own = pair.a.double() * pair.scale
        there = own != 0
        middle, reach = block[there].double() / own[there], half_spacing(block)[there] / own[there].abs()
        low, high = max(low, float((middle - reach).max())), min(high, float((middle + reach).min()))
    return (low + high) / 2  # PEFT rounds twice, so that the two may have crossed
