"""A recovered recipe in one sentence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from unmerge.recipes.record import Proof, Unknown

#: how many times what rounding would leave still counts as rounding: targets that were rounded once more than is known
_ROUNDING = 2.0


def says(answer: Mapping[str, Any], target: str) -> str:
    """The sentence.

    Args:
        answer: fields of a ``RecoveredRecipe``.
        target: what to call the target.
    """
    kind = answer["answer"]
    if kind == "base":
        return f"{target} is the base itself."
    if kind in ("fine-tune", "none of these"):
        return f"{target} is no merge of the dictionary's atoms: {answer['unknown'].nature}."
    models = answer["parameters"]["models"]
    named = ", ".join(f"{name}{_settings(settings)}" for name, settings in models.items())
    if kind == "part of a recipe":
        unknown = answer["unknown"]
        if is_rounding(unknown):
            return f"{target} holds {named} (as under {answer['method']}), and nothing else: the {unknown.share:.2%} that are left are rounding."
        beside = f"and something unknown, {unknown.share:.1%} of the squared change" + (f" with rank {unknown.rank}" if unknown.rank else "")
        return f"{target} holds {named} (as under {answer['method']}) {beside}."
    return f"{target} is {answer['method']} of {named}{_proven(answer.get('proof'))}."


def is_rounding(rest: Unknown) -> bool:
    """Whether what is left may be rounding alone: it has no rank, and is no more than rounding would leave, twice over."""
    return not rest.rank and rest.rounding_share is not None and rest.share <= _ROUNDING * rest.rounding_share


def _settings(settings: Mapping[str, Any]) -> str:
    weight = settings.get("weight")
    return f" {weight:g}" if isinstance(weight, float | int) else ""


def _proven(proof: Proof | None) -> str:
    if proof is None:
        return ""
    if proof.identical_share is not None:
        return f": run again, {proof.identical_share:.2%} of the changed weights are identical"
    decoy = max(proof.decoys.values(), default=None)
    beside = "" if decoy is None else f", the best decoy {decoy:.1%}"
    share = proof.explained if proof.telling is None else proof.telling
    return f": its masks explain {share:.2%} of the weights that tell{beside}"
