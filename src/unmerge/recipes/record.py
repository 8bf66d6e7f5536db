"""What ``unmerge recover`` says: the JSON beside the recipe."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from unmerge.core.records import Environment, Source
from unmerge.decomposition.result import SkippedTensor

SCHEMA = "unmerge/recipe/1"


class KindProof(BaseModel):
    """One kind of tensor (``self_attn.q_proj.weight``) compared weight by weight.

    Attributes:
        changed: weights that differ from the base in the target or in what the recipe makes.
        identical: those of them that are the same in both.
        largest_difference: between target and what the recipe makes.
    """

    changed: int
    identical: int
    largest_difference: float


class Proof(BaseModel):
    """The recipe, run by mergekit, beside the target.

    Attributes:
        identical_share: of the weights that differ from the base in either; None for random masks, which differ from run to run.
        largest_difference: of all weights.
        largest_change: of the target from the base.
        reconstruction_error: ||t - t_hat|| / ||t||; for random masks with the masks read off.
        by_kind: by kind of tensor.
        explained: for random masks, the share of changed weights that one of the 2^n sums is, to the last bit.
        telling: the same share among weights where few of the values that the target could have are sums.
        decoys: that share with one atom swapped for an absent one, "present -> absent".
    """

    identical_share: float | None = None
    largest_difference: float | None = None
    largest_change: float | None = None
    reconstruction_error: float
    by_kind: dict[str, KindProof] = {}
    explained: float | None = None
    telling: float | None = None
    decoys: dict[str, float] = {}


class Rival(BaseModel):
    """Another recipe.

    Attributes:
        method, parameters: as in the answer.
        identical_share: of the changed weights; of random masks the explained share; None where only a part is known.
        apart: what tells it from the answer.
    """

    method: str
    parameters: dict[str, Any]
    identical_share: float | None
    apart: str


class Unknown(BaseModel):
    """What the known atoms leave.

    Attributes:
        share: of the target's squared norm.
        norm: of what is left.
        rounding_share: what rounding alone would have left of a target made of the known part; None where no part is known, or nothing
            was rounded.
        rank: that stands above the noise, in most of the tensors; None where no tensor can tell.
        components: how many atoms of the dictionary's usual rank that is, at least.
        nature: what it may be, in words.
    """

    share: float
    norm: float
    rounding_share: float | None = None
    rank: int | None = None
    components: int | None = None
    nature: str


class Acted(BaseModel):
    """The coefficient with which one atom acted.

    Attributes:
        coefficient: the typed weight in the dtype of the merge, over the sum of all where the method normalises, times lambda.
        interval: what else it may be: the numbers that the dtype rounds to the same one, or the interval of an estimate; None where neither
            is known.
    """

    coefficient: float
    interval: tuple[float, float] | None = None


class RecoveredRecipe(BaseModel):
    """How a target was merged.

    Attributes:
        answer: "recipe"; "part of a recipe", where something unknown was merged as well; "base"; "fine-tune"; or "none of these".
        says: the answer in one sentence.
        method: as mergekit names it; "peft:" and the combination type for a target that PEFT combined; "adapter" for an adapter of
            the dictionary as it is, or with another alpha; None without a recipe.
        parameters: ``models`` (settings by atom) and the settings for all.
        acted: by atom, where one coefficient acted.
        scale_free: whether a common factor of the weights cannot be known.
        identical_share: of changed weights, as in the proof.
        configuration: the mergekit configuration, None where there is none.
        call: the arguments of PEFT's ``add_weighted_adapter``, where that made the target.
        rivals: other recipes that make the target as well, or nearly.
        unknown: what the dictionary does not explain; None where a recipe makes the target.
        looked: names of the methods that were tried, with the sets of atoms.
    """

    model_config = ConfigDict(serialize_by_alias=True)

    schema_: str = Field(SCHEMA, alias="schema")
    answer: str
    says: str
    method: str | None = None
    parameters: dict[str, Any] = {}
    acted: dict[str, Acted] = {}
    scale_free: bool = False
    identical_share: float | None = None
    proof: Proof | None = None
    rivals: list[Rival] = []
    unknown: Unknown | None = None
    configuration: dict[str, Any] | None = None
    call: dict[str, Any] | None = None
    looked: list[str] = []
    skipped: list[SkippedTensor] = []
    target: Source
    base: Source
    dictionary: dict[str, Source]
    seconds: float
    environment: Environment
