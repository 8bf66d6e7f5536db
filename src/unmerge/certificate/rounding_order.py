"""In which order a merge rounds: the hypotheses, as forward models from base, atoms and coefficients to the weights.

    together                    round(W + sum_i c_i d_i)                          float32 merges saved in 16 bits, one adapter by PEFT
    together, sum rounded       round(W + round(sum_i c_i d_i))                   PEFT's add_weighted_adapter (cat) on a 16-bit base, safe_merge, MLX
    together, products rounded  round(W + round(round(c_1 d_1) + ...))            by hand, all in 16 bits; mergekit's task arithmetic
    one after another           W <- round(W + c_i d_i) for each i                PEFT's merge of several adapters; merges of merges, each saved
    ... products rounded        W <- round(W + round(c_i d_i)) for each i         the same with safe_merge
    atoms rounded first         V_i = round(W + d_i) - W in place of d_i          mergekit, which merges every adapter into the base beforehand
    base rounded first          round(W) in place of W                            a float32 base that is loaded in 16 bits

Read in the sources of PEFT 0.21 and mergekit 0.1, and compared with what they write, weight by weight (``make rounding``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Matrix = NDArray[np.float64]


class Arithmetic(StrEnum):
    """What is rounded to the grid before it is added to the weights."""

    NOTHING = ""
    SUM = "sum rounded"
    PRODUCTS = "products rounded"


@runtime_checkable
class Weights(Protocol):
    """The weights that a merge starts from, and the changes that k atoms make in them."""

    @property
    def base(self) -> Tensor:
        """(w,) in float64."""
        ...

    @property
    def atoms(self) -> Tensor:
        """(k, w) unrounded, in float64."""
        ...

    def on_grid(self, values: Tensor) -> Tensor:
        """(w,) rounded to the grid that the target lies on."""
        ...

    def on_base_grid(self, values: Tensor) -> Tensor:
        """(w,) rounded to the dtype that the base is stored in."""
        ...

    def acting(self, coefficients: Matrix) -> Matrix:
        """(k,) coefficients rounded to the target's grid."""
        ...


@dataclass(frozen=True)
class Order:
    """One order of rounding.

    Attributes:
        atoms_first: every atom is merged into the base and rounded before it is scaled.
        arithmetic: what is rounded before it is added.
        sequence: places of the atoms in the order in which they are added, with a rounding after each; empty where their sum is added.
        base_first: the base is rounded to the target's grid before anything is added.
    """

    atoms_first: bool = False
    arithmetic: Arithmetic = Arithmetic.NOTHING
    sequence: tuple[int, ...] = ()
    base_first: bool = False

    def __str__(self) -> str:
        parts = ["base rounded first"] if self.base_first else []
        parts += ["atoms rounded first"] if self.atoms_first else []
        parts += ["one after another" if self.sequence else "together"]
        return ", ".join([*parts, *([self.arithmetic.value] if self.arithmetic else [])])

    @property
    def is_linear(self) -> bool:
        """Whether the value before the last rounding is linear in the coefficients."""
        return not self.sequence and not self.arithmetic

    def acting(self, coefficients: Matrix, weights: Weights) -> Matrix:
        """(k,) the coefficients that act: mergekit's arithmetic in 16 bits rounds the weights of a recipe as well."""
        return weights.acting(coefficients) if self.atoms_first and self.arithmetic else coefficients

    def regressors(self, weights: Weights) -> Tensor:
        """(k, w) what the coefficients multiply: the atoms, or what they change where each was merged and rounded."""
        start = self._start(weights)
        return torch.stack([self._change(weights, start, atom) for atom in weights.atoms]) if self._is_stacked else weights.atoms

    def before_last(self, weights: Weights, coefficients: Matrix) -> Tensor:
        """(w,) the merged weights before the last rounding."""
        value, numbers = self._start(weights), coefficients.tolist()
        if self.sequence:
            for step, place in enumerate(self.sequence):
                value = weights.on_grid(value) if step else value
                value = value + self._product(weights, numbers[place] * self._change(weights, value, weights.atoms[place]))
            return value
        total = torch.zeros_like(value)
        for atom, number in zip(weights.atoms, numbers, strict=True):
            part = number * self._change(weights, value, atom)
            if self.arithmetic == Arithmetic.PRODUCTS:
                part = weights.on_grid(part)
                # a script adds one product to the others in 16 bits; mergekit stacks them, and torch sums a stack in float32
                total = total + part if self.atoms_first else weights.on_grid(total + part)
            else:
                total = total + part
        return value + (weights.on_grid(total) if self.arithmetic else total)

    def forward(self, weights: Weights, coefficients: Matrix) -> Tensor:
        """(w,) the merged weights."""
        return weights.on_grid(self.before_last(weights, coefficients))

    def beside_others(self, weights: Weights, coefficients: Matrix) -> Tensor:
        """(w,) the weights to which something else is then added: of adapters that were merged one after another they were rounded."""
        return self.forward(weights, coefficients) if self.sequence else self.before_last(weights, coefficients)

    def offset(self, weights: Weights, regressors: Tensor, coefficients: Matrix) -> Tensor:
        """(w,) the error of the roundings before the last one: what the merged weights then have beside W + sum_i c_i regressor_i."""
        return self.before_last(weights, coefficients) - weights.base - torch.from_numpy(coefficients) @ regressors

    @property
    def _is_stacked(self) -> bool:
        return self.atoms_first and not self.sequence

    def _start(self, weights: Weights) -> Tensor:
        return weights.on_grid(weights.base) if self.base_first else weights.base

    def _change(self, weights: Weights, start: Tensor, atom: Tensor) -> Tensor:
        if not self.atoms_first:
            return atom
        merged = weights.on_base_grid(start + atom)
        return (weights.on_grid(merged) if self.base_first else merged) - start

    def _product(self, weights: Weights, part: Tensor) -> Tensor:
        return weights.on_grid(part) if self.arithmetic else part


#: the plainest order, which is assumed where none can be told
TOGETHER = Order()


def orders(atoms: int, *, rounds_base: bool, rounds_parts: bool, rounds_atoms: bool) -> list[Order]:
    """The orders to be tried, simplest first; sequences are those of the dictionary, and searched for afterwards.

    Args:
        atoms: how many there are; of one alone products and sum are the same, and so are together and one after another.
        rounds_base: whether the base does not lie on the target's grid.
        rounds_parts: whether the grid is coarser than float32, so that products and sums may have been rounded to it or not.
        rounds_atoms: whether the base is stored as coarsely as the target, so that an atom that is merged into it is rounded.
    """
    several, sequence = atoms > 1, tuple(range(atoms))
    plain = [TOGETHER, Order(atoms_first=True)]
    plain += [Order(arithmetic=Arithmetic.SUM), Order(atoms_first=True, arithmetic=Arithmetic.PRODUCTS)] if rounds_parts else []
    plain += [Order(sequence=sequence), Order(atoms_first=True, sequence=sequence)] if several else []
    plain += [Order(arithmetic=Arithmetic.PRODUCTS, sequence=places) for places in (sequence, ())] if several and rounds_parts else []
    bases = [replace(order, base_first=True) for order in plain] if rounds_base else []
    return [order for order in plain if rounds_atoms or not order.atoms_first] + bases


def orders_beside_others(atoms: int, *, rounds_base: bool) -> list[Order]:
    """The orders that may be told where something unknown was merged as well, simplest first."""
    sequence = tuple(range(atoms))
    plain = [TOGETHER, Order(atoms_first=True), *(Order(sequence=places) for places in dict.fromkeys((sequence, sequence[::-1])))]
    return plain + ([replace(order, base_first=True) for order in plain] if rounds_base else [])


def swaps(order: Order) -> Sequence[Order]:
    """The same order with two neighbours of its sequence exchanged."""
    places = order.sequence
    return [replace(order, sequence=(*places[:at], places[at + 1], places[at], *places[at + 2 :])) for at in range(len(places) - 1)]
