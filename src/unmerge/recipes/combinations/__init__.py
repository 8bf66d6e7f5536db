"""Adapters that PEFT made of others, ``add_weighted_adapter``: a call that makes them, found and run again.

One file a kind. A kind says what it takes of each adapter (``kind``); ``looks`` says what it is taken of, factors or
products, and how much of the result is seen; ``fit`` and ``density`` find the numbers; ``standin`` runs PEFT itself.
"""

from unmerge.recipes.combinations.combine import Combination, recover_adapter
from unmerge.recipes.factors import has_pair

__all__ = ["Combination", "has_pair", "recover_adapter"]
