"""Combinations that are linear in what they take of each adapter: the kinds without random masks, of factors or of products."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from unmerge.recipes.combinations.call import Call
from unmerge.recipes.combinations.case import AdapterCase
from unmerge.recipes.combinations.density import search
from unmerge.recipes.combinations.fit import Fit, fit, refined
from unmerge.recipes.combinations.kind import Kind
from unmerge.recipes.combinations.linear import LINEAR
from unmerge.recipes.combinations.looks import Piece, factors, products
from unmerge.recipes.combinations.magnitude_prune import MAGNITUDE_PRUNE
from unmerge.recipes.combinations.numbers import typed
from unmerge.recipes.combinations.ties import TIES
from unmerge.recipes.shortlist import clearness, sets
from unmerge.vectors import Gram

KINDS = (LINEAR, MAGNITUDE_PRUNE, *TIES)

#: the share of the target's squared norm that an answer may leave; 16-bit factors leave 3e-6
_UNEXPLAINED = 1e-3
#: where atoms as they are leave more than this, of factors and of products, the target is not made of them: the subspaces
#: that are seen of a product are the target's own, so that even a foreign one has something in common with every atom
_FOREIGN = {False: 0.97, True: 0.85}
#: entries of each side that a density is looked for with
_SEARCHED = 12_000
#: weights so many standard errors from 0 count
_CLEAR = 6.0


def candidates(case: AdapterCase, of_products: bool, looked: list[str], kinds: Sequence[Kind] = KINDS) -> Iterator[Call]:
    """Calls that leave hardly anything of the target, by kind and set of atoms; each as typed and as fitted."""
    for atoms in likely(case, of_products):
        if foreign(case, atoms, of_products):
            continue
        pieces = _pieces(case, atoms, of_products)
        for kind in kinds:
            looked.append(f"{name_of(kind, of_products)} of {', '.join(atoms)}")
            density, found = _fitted(pieces, kind)
            present = tuple(atom for atom, weight, error in zip(atoms, found.weights, found.errors, strict=True) if abs(weight) > _CLEAR * error)
            if found.left > _UNEXPLAINED or not present:
                continue
            chosen = pieces if present == atoms else _pieces(case, present, of_products)
            if present != atoms:
                density, found = _fitted(chosen, kind)
            if case.dtype.itemsize == 2:
                found = refined(chosen, kind, density, found)
            order = sorted(range(len(present)), key=lambda place: case.atoms[present[place]].config.rslora != case.target.config.rslora)
            names, exact = tuple(present[place] for place in order), tuple(float(found.weights[place]) for place in order)
            short = tuple(typed(weight, float(found.errors[place]), case.dtype) for weight, place in zip(exact, order, strict=True))
            for weights in (short, exact):
                yield _call(case, kind, names, weights, density, of_products)


def likely(case: AdapterCase, of_products: bool) -> list[tuple[str, ...]]:
    """Sets of atoms that may be in the target.

    Of factors the B's tell: adapters often share the A that training starts from.
    """
    tensors = case.few(of_products)
    atoms = fitting(case, of_products)
    if not atoms:
        return []
    pieces = [piece for piece in _pieces(case, atoms, of_products, tensors) if piece.side != "a"]
    rows = [piece.seen(piece.raw) for piece in pieces]
    return sets(
        clearness(
            Gram(
                tuple(atoms),
                tensors,
                np.stack([(row @ row.T).numpy() for row in rows]),
                np.stack([(row @ piece.target).numpy() for row, piece in zip(rows, pieces, strict=True)]),
                np.array([float(piece.target.square().sum()) for piece in pieces]),
                np.array([piece.target.numel() for piece in pieces]),
            )
        )
    )


def foreign(case: AdapterCase, atoms: Sequence[str], of_products: bool) -> bool:
    """Whether the target can hardly be made of these atoms, by any kind."""
    return fit(_pieces(case, atoms, of_products), LINEAR, None).left > _FOREIGN[of_products]


def fitting(case: AdapterCase, of_products: bool) -> list[str]:
    """Atoms that can take part: PEFT combines factors of one shape only."""
    return [atom for atom in case.atoms if of_products or _has_shape(case, atom)]


def name_of(kind: Kind, of_products: bool) -> str:
    """As PEFT names it."""
    if not of_products:
        return kind.name
    return "svd" if kind.name == "linear" else f"{kind.name}_svd"


def _has_shape(case: AdapterCase, atom: str) -> bool:
    """Whether an atom's factors have the target's shapes, wherever it has any."""
    pairs = [(pair, case.wanted(tensor)) for tensor in case.tensors if (pair := case.pair(atom, tensor)) is not None]
    return bool(pairs) and all(pair.a.shape == wanted.a.shape and pair.b.shape == wanted.b.shape for pair, wanted in pairs)


def _pieces(case: AdapterCase, atoms: Sequence[str], of_products: bool, tensors: Sequence[str] | None = None) -> list[Piece]:
    return (products if of_products else factors)(case, atoms, case.few(of_products) if tensors is None else tensors)


def _fitted(pieces: Sequence[Piece], kind: Kind) -> tuple[float | None, Fit]:
    if not kind.prunes:
        return None, fit(pieces, kind, None)
    density = search(_some(pieces), kind)
    return density, fit(pieces, kind, density)


def _some(pieces: Sequence[Piece]) -> list[Piece]:
    """Enough of them for a density, of every side."""
    chosen: list[Piece] = []
    for side in dict.fromkeys(piece.side for piece in pieces):
        here = [piece for piece in pieces if piece.side == side]
        chosen += here[:: max(1, sum(piece.raw[0].numel() for piece in here) // _SEARCHED)]
    return chosen


def _call(case: AdapterCase, kind: Kind, atoms: tuple[str, ...], weights: tuple[float, ...], density: float | None, of_products: bool) -> Call:
    rank = max(case.wanted(tensor).a.shape[0] for tensor in case.tensors) if of_products else None
    return Call(atoms, weights, name_of(kind, of_products), density, kind.majority, rank)
