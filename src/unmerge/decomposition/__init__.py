"""From a target and a dictionary to a bill of materials."""

from unmerge.decomposition.acting import acting
from unmerge.decomposition.dictionary import Dictionary, open_base, open_dictionary, open_vector
from unmerge.decomposition.known_products import products_of
from unmerge.decomposition.result import Decomposition
from unmerge.decomposition.run import decompose

__all__ = ["Decomposition", "Dictionary", "acting", "decompose", "open_base", "open_dictionary", "open_vector", "products_of"]
