"""Random masks on products, of which an SVD kept the leading part: nothing is left to be read off, but much to be compared.

The masks' noise goes into the part that was kept, and makes least squares see too much of every atom. So the same is done to
masks drawn here (indirect inference: Gourieroux, Monfort and Renault 1993): weights and density are moved until a simulated
combination, looked at in the same way, gives what the target gives. Of the kinds the one that comes nearest is named.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from unmerge.recipes.combinations.call import Call
from unmerge.recipes.combinations.case import AdapterCase
from unmerge.recipes.combinations.dare import DARE
from unmerge.recipes.combinations.fit import fit
from unmerge.recipes.combinations.kind import Kind
from unmerge.recipes.combinations.linear import LINEAR
from unmerge.recipes.combinations.looks import Piece, product_piece, products
from unmerge.recipes.combinations.summed import foreign, likely, name_of
from unmerge.recipes.combinations.ties import TIES
from unmerge.recipes.decimals import shortest
from unmerge.recipes.record import Proof

#: rounds in which weights and density are moved, and the last of them that are averaged
_ROUNDS, _AVERAGED = 12, 6
#: entries of products that the numbers are found with, once the kind is known
_ENTRIES = 800_000
#: relative error of weights found so, absolute error of a density
_WEIGHT, _DENSITY = 0.005, 0.004
#: how far a simulated combination may be from the target, in logarithms of what is left
_NEAR = 0.05
#: how a target is looked at: by the same kinds without masks, in the order of DARE
_LOOKS = (LINEAR, *TIES)


def recovered(case: AdapterCase, looked: list[str]) -> tuple[Call, Proof] | None:
    """The call and its proof, None where no kind comes near."""
    found: list[tuple[float, tuple[str, ...], int]] = []
    for atoms in likely(case, True):
        if not foreign(case, atoms, True):
            looked.append(f"dare_linear_svd, dare_ties_svd of {', '.join(atoms)}")
            pieces = products(case, atoms, case.few(True))
            found += [(_matched(pieces, own)[2], atoms, own) for own in range(len(DARE))]
    off, atoms, own = min(found, default=(math.inf, (), 0))
    if off > _NEAR:
        return None
    kind, pieces = DARE[own], products(case, atoms, case.few(True, _ENTRIES))
    weights, density, _ = _matched(pieces, own)
    short = tuple(shortest(weight - _WEIGHT * abs(weight), weight + _WEIGHT * abs(weight)) for weight in weights.tolist())
    rank = max(case.wanted(tensor).a.shape[0] for tensor in case.tensors)
    call = Call(atoms, short, name_of(kind, True), shortest(density - _DENSITY, density + _DENSITY), kind.majority, rank)
    return call, Proof(reconstruction_error=math.sqrt(fit(pieces, _LOOKS[own], None).left))


def _matched(pieces: Sequence[Piece], own: int) -> tuple[Tensor, float, float]:
    """Weights and density under which a simulated combination looks as the target does to its own kind, and how far it still is to all."""
    kind, wanted = DARE[own], _looks(pieces)
    weights, odds = wanted[0][own].clone(), 1.0  # odds of being dropped
    trail: list[tuple[Tensor, float, Tensor]] = []
    for turn in range(_ROUNDS):
        density = 1 / (1 + odds)
        seen = _looks(_simulated(pieces, kind, weights, density, turn))
        trail.append((weights, odds, (seen[1] / wanted[1]).log()))
        weights = weights * (wanted[0][own] / seen[0][own]).clamp(0.5, 2.0)
        odds = min(max(odds * float((wanted[1][own] / seen[1][own]).clamp(0.5, 2.0)), 0.02), 60.0)
    last = trail[-_AVERAGED:]
    mean = torch.stack([weights for weights, _, _ in last]).mean(0)
    density = 1 / (1 + math.exp(sum(math.log(odds) for _, odds, _ in last) / len(last)))
    off = torch.stack([off for _, _, off in last]).mean(0)
    return mean, density, float(off.abs().max())


def _looks(pieces: Sequence[Piece]) -> tuple[Tensor, Tensor]:
    """(looks, n) weights, and (looks,) what each leaves."""
    fits = [fit(pieces, kind, None) for kind in _LOOKS]
    return torch.stack([found.weights for found in fits]), torch.tensor([max(found.left, 1e-12) for found in fits], dtype=torch.float64)


def _simulated(pieces: Sequence[Piece], kind: Kind, weights: Tensor, density: float, seed: int) -> list[Piece]:
    """The same pieces with a target that PEFT's arithmetic makes of masks drawn here."""
    generator = torch.Generator().manual_seed(seed)
    made = []
    for piece in pieces:
        kept = (torch.rand(piece.raw.shape, generator=generator) < density).double()
        merged = (weights[:, None, None] * kind.parts(piece.raw, kept)).sum(0) / density
        assert piece.left is not None
        left, values, right = torch.linalg.svd(merged, full_matrices=False)
        rank = piece.left.shape[1]
        made.append(product_piece(piece.raw, left[:, :rank], values[:rank], right[:rank]))
    return made
