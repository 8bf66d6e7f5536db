"""An adapter beside those that may have gone into it, factor by factor as they are stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from unmerge.checkpoints import Adapter
from unmerge.recipes.factors import Pair, has_pair, read_pair

#: entries of factors that estimates are made from, and of products
_FACTORS, _PRODUCTS = 400_000, 200_000


@dataclass(frozen=True)
class AdapterCase:
    """What a combination is looked for in.

    Attributes:
        target: the adapter to explain.
        atoms: the dictionary's adapters, by name.
        tensors: those that the target has factors for.
    """

    target: Adapter
    atoms: dict[str, Adapter]
    tensors: tuple[str, ...]
    _held: dict[tuple[str, str], Pair] = field(default_factory=dict, repr=False, compare=False)

    @staticmethod
    def of(target: Adapter, atoms: Sequence[Adapter]) -> AdapterCase:
        """All tensors of the target that are a product of two factors."""
        return AdapterCase(target, {atom.name: atom for atom in atoms}, tuple(tensor for tensor in target.shapes if has_pair(target, tensor)))

    @property
    def dtype(self) -> torch.dtype:
        """The dtype that the target is stored in."""
        return self.wanted(self.tensors[0]).a.dtype

    @property
    def precision(self) -> float:
        """The relative rounding error of that dtype."""
        return torch.finfo(self.dtype).eps / 2

    def wanted(self, tensor: str) -> Pair:
        """The target's factors."""
        return self._pair("", self.target, tensor)

    def pair(self, atom: str, tensor: str) -> Pair | None:
        """An atom's factors, None where it leaves the tensor as it is."""
        adapter = self.atoms[atom]
        return self._pair(atom, adapter, tensor) if has_pair(adapter, tensor) else None

    def few(self, products: bool, entries: int | None = None) -> tuple[str, ...]:
        """Evenly spaced tensors, as many as estimates need: from factors, or from products; or of so many entries."""
        sizes = [self.target.shapes[tensor] for tensor in self.tensors]
        pairs = [self.wanted(tensor) for tensor in self.tensors]
        size = sum(height * width for height, width in sizes) if products else sum(pair.a.numel() + pair.b.numel() for pair in pairs)
        return self.tensors[:: max(1, size // (entries or (_PRODUCTS if products else _FACTORS)))]

    def _pair(self, key: str, adapter: Adapter, tensor: str) -> Pair:
        if (key, tensor) not in self._held:
            self._held[key, tensor] = read_pair(adapter, tensor)
        return self._held[key, tensor]
