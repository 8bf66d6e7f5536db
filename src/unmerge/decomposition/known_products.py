"""The dictionary's own inner products, kept from one decomposition to the next (``core.remembered``).

They are kept tensor by tensor under the hashes of everything they depend on: the atoms' files, the base's where an atom cannot be read
without it, and the way in which products are taken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from unmerge.checkpoints import Adapter, Checkpoint
from unmerge.core import remembered
from unmerge.core.records import fingerprint
from unmerge.core.settings import cache_folder
from unmerge.decomposition.alignment import aligned_with
from unmerge.decomposition.dictionary import Dictionary, Vector
from unmerge.vectors import LARGE, AllWeights, Gram, Held, chosen_device, gram

_KIND = "products"
#: of what is kept; another one is not read
_VERSION = 1


def products_of(target: Vector, dictionary: Dictionary, watch: Callable[[Iterable[str]], Iterable[str]] = iter) -> Gram:
    """The products between atoms, and of each with a target; those between atoms are taken once."""
    target, dictionary = aligned_with(target, dictionary)
    known = KnownProducts(dictionary.atoms)
    products = gram(dictionary.atoms, target, watch, AllWeights(known.by_tensor))
    known.keep(products)
    return products


class KnownProducts:
    """The inner products between some atoms, as far as they are known.

    Args:
        atoms: the dictionary, in order.
    """

    def __init__(self, atoms: Sequence[Vector]) -> None:
        self._key = _key_of(atoms) if cache_folder() else ""
        self.by_tensor: Mapping[str, NDArray[np.float64]] = (remembered.recall(_KIND, self._key) if self._key else None) or {}

    def keep(self, products: Gram) -> None:
        """Keep what was taken, with what was known."""
        taken = {tensor: gram for tensor, gram in zip(products.tensors, products.gram, strict=True) if gram.any()}
        if self._key and taken.keys() - self.by_tensor.keys():
            remembered.keep(_KIND, self._key, {**self.by_tensor, **taken})


def _key_of(atoms: Sequence[Vector]) -> str:
    bases = [found.source().sha256 for vector in atoms if (found := _base_of(vector)) is not None]
    reading = [_reading(vector) for vector in atoms]
    return fingerprint([_VERSION, LARGE, chosen_device().type, [vector.source().sha256 for vector in atoms], bases[:1], str(reading)])


def _base_of(vector: Vector) -> Checkpoint | None:
    """The base that a vector's changes depend on."""
    if isinstance(vector, Held) or (isinstance(vector, Adapter) and not vector.needs_base):
        return None
    return vector.base


def _reading(vector: Vector) -> list[object]:
    """How a vector is read, beside what its files hold."""
    if isinstance(vector, Held):
        return [vector.left_rows, sorted(vector.factors.items())]
    return [vector.matched_names, vector.left_rows, sorted(vector.shared.items()) if isinstance(vector, Adapter) else []]
