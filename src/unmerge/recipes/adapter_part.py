"""An adapter that no call of PEFT makes: which atoms its products hold, with what weights, and what is left.

Factors that were added, stacked by hand or cut by an SVD with something unknown among them have one thing in common: the products are a
sum, of which the certificate tells the known part.
"""

from __future__ import annotations

from typing import Any

from unmerge.checkpoints import Adapter, Checkpoint
from unmerge.core.errors import BadInput
from unmerge.decomposition import Decomposition, Dictionary, decompose
from unmerge.recipes.nature import Nature
from unmerge.recipes.part import typed
from unmerge.recipes.record import Acted, Rival, Unknown

#: how adapters are summed whole; what it is called where only a part is known
_SUM = "peft:cat"


def adapter_part(target: Adapter, dictionary: Dictionary, base: Checkpoint) -> dict[str, Any]:
    """Fields of a ``RecoveredRecipe``: the known part and the unknown one; the unknown alone where no atom is named.

    Args:
        target: the adapter.
        dictionary: the atoms, adapters or not.
        base: the base model.
    """
    try:
        contents = decompose(target, dictionary, base)
    except BadInput:  # adapters that change nothing, on either side: there is nothing to tell apart
        return {}
    if not contents.components:
        return {"unknown": _unknown(contents, 1.0)}
    models = {part.name: {"weight": typed(part)} for part in contents.components}
    return {
        "method": _SUM,
        "parameters": {"models": models},
        "acted": {part.name: Acted(coefficient=part.coefficient, interval=part.interval) for part in contents.components},
        "rivals": [
            Rival(method="peft:svd", parameters={"models": models}, identical_share=None, apart="nothing in products: svd cuts what cat stacks")
        ],
        "unknown": _unknown(contents, contents.unexplained.share),
    }


def _unknown(contents: Decomposition, share: float) -> Unknown:
    rest = contents.unexplained
    nature = Nature.ONE_ADAPTER if (rest.components or 1) == 1 else Nature.ADAPTERS
    return Unknown(
        share=share,
        norm=contents.norm * share**0.5,
        rounding_share=rest.rounding_share,
        rank=rest.rank,
        components=rest.components,
        nature=nature.value if rest.rank else "an adapter that is no combination of the dictionary's",
    )
