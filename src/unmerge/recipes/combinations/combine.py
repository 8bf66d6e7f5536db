"""From an adapter back to the call of PEFT that makes it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from typing import Any

import torch

from unmerge.checkpoints import Adapter
from unmerge.recipes.combinations import cat, copied, drawn, simulated, summed
from unmerge.recipes.combinations.call import Call
from unmerge.recipes.combinations.case import AdapterCase
from unmerge.recipes.combinations.copied import Copied
from unmerge.recipes.combinations.linear import LINEAR
from unmerge.recipes.combinations.proof import Made, Watch, prove
from unmerge.recipes.record import Proof

#: a share of identical entries that is an answer, and one that ends the search
_ANSWER, _EXACT = 0.95, 0.9995
#: A's rows are orthonormal after an SVD, within the rounding of 16-bit factors
_ORTHONORMAL = 0.02
#: in float32 weights with many digits come back to about this much
_SLACK = 1e-6
#: at most so many adapters are put into every order
_ORDERED = 5


@dataclass(frozen=True)
class Combination:
    """An answer.

    Attributes:
        method: "peft:" and the combination type; "adapter" for one as it is.
        parameters: settings by atom (``models``) and those for all.
        call: the arguments of ``add_weighted_adapter``; None for one adapter as it is.
        proof: what it makes beside the target.
    """

    method: str
    parameters: dict[str, Any]
    call: dict[str, Any] | None
    proof: Proof


def recover_adapter(target: Adapter, atoms: Sequence[Adapter], looked: list[str], watch: Watch = iter) -> Combination | None:
    """The call that makes an adapter, None where nothing was found.

    Args:
        target: a LoRA.
        atoms: the dictionary's LoRAs.
        looked: what was tried is added to it.
        watch: wraps the loop over tensors of the proof.
    """
    case = AdapterCase.of(target, atoms)
    if not case.tensors:
        return None
    for look in _looks(case, looked):
        best, share = None, 0.0
        for candidate in look:
            if (found := _share(case, candidate, case.few(products=True))) > share:
                best, share = candidate, found
            if share >= _EXACT:
                break
        if best is not None and share >= _ANSWER:
            return _answer(best, _proof(case, best, watch(case.tensors)))
    read = simulated.recovered(case, looked) if _is_orthonormal(case) else drawn.recovered(case, looked)
    return None if read is None else _answer(Made(read[0]), read[1])


def _answer(found: Copied | Made, proof: Proof) -> Combination:
    return Combination(found.method, found.parameters, found.call.arguments() if isinstance(found, Made) else None, proof)


def _looks(case: AdapterCase, looked: list[str]) -> Iterator[Iterator[Copied | Made]]:
    """Candidates, the kinds that say most about a target first: a sum of products explains what ``cat`` makes as well."""
    looked.append("adapter")
    yield copied.candidates(case)
    looked.append("cat")
    yield _run(case, cat.candidates(case))
    if _is_orthonormal(case):
        yield _run(case, summed.candidates(case, True, looked))
    yield _run(case, summed.candidates(case, False, looked))
    # any factors of a weighted sum
    yield _run(case, summed.candidates(case, True, looked, (LINEAR,)))


def _run(case: AdapterCase, calls: Iterable[Call]) -> Iterator[Made]:
    """Calls in the best order, with atoms as PEFT loads them, and 16-bit ones as they are, too."""
    for call in calls:
        best = _ordered(case, Made(call))
        yield best
        if any(pair.a.dtype.itemsize == 2 for atom in call.adapters for tensor in case.tensors if (pair := case.pair(atom, tensor)) is not None):
            yield replace(best, loaded=None)


def _is_orthonormal(case: AdapterCase) -> bool:
    """Whether the rows of A are, as an SVD leaves them."""
    a = case.wanted(case.tensors[0]).a.double()
    return bool(((a @ a.T) - torch.eye(len(a), dtype=a.dtype)).abs().max() < _ORTHONORMAL)


def _share(case: AdapterCase, found: Copied | Made, tensors: Iterable[str]) -> float:
    return _proof(case, found, tensors, _SLACK if case.dtype == torch.float32 else 0.0).identical_share or 0.0


def _proof(case: AdapterCase, found: Copied | Made, tensors: Iterable[str], slack: float = 0.0) -> Proof:
    return prove(case, lambda tensor: found.pair(case, tensor), found.free, tensors, slack)


def _ordered(case: AdapterCase, made: Made) -> Made:
    """The order of the adapters that gives the most identical entries of the smallest tensor: sums in floating point depend on it."""
    count = len(made.call.adapters)
    if made.free or not 3 <= count <= _ORDERED or made.call.combination_type == "cat":
        return made
    smallest = min(case.tensors, key=lambda tensor: case.wanted(tensor).a.numel() + case.wanted(tensor).b.numel())

    def strictly(other: Made) -> float:
        return _proof(case, other, [smallest]).identical_share or 0.0

    best, share = made, strictly(made)
    for order in permutations(range(count)):
        if share == 1.0:
            break
        if case.atoms[made.call.adapters[order[0]]].config.rslora != case.atoms[made.call.adapters[0]].config.rslora:
            continue
        names, weights = tuple(made.call.adapters[place] for place in order), tuple(made.call.weights[place] for place in order)
        call = replace(made.call, adapters=names, weights=weights)
        if (found := strictly(replace(made, call=call))) > share:
            best, share = replace(made, call=call), found
    return best
