"""What a decomposition is asked for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from unmerge.core.errors import unknown_name


class Settings(BaseModel):
    """The settings of L3D; the defaults are those of its source, but for the length and the warm start.

    The source trains 1000 epochs; a tenth of that reaches the same loss on the toy models. Without a warm start one run in
    three leaves a circuit out there, and gives another one two subnetworks.

    Attributes:
        subnetworks: n_v.
        rank: of every tensor's part, or by tensor's name (1 where it is not named).
        form: ``cp`` or ``tucker``.
        reference: ``random`` (another sample of the batch) or ``mean`` (of the batch).
        share: k, the share of coefficients that batch top-k keeps.
        epochs: passes over the samples.
        batch: samples in a step.
        starts: from noise, side by side, of which the one with the least loss is kept.
        learning_rate: Adam's; times ``decay`` ten times in a run, at equal distances.
        decay: the factor.
        warm: share of the epochs during which nearly all coefficients are kept (``WARM_SHARE``).
        chunk: samples whose gradients are held in memory at once, at least a batch.
        seed: of the first run; run r has seed + r.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    subnetworks: int = Field(ge=1)
    rank: int | dict[str, int] = 1
    form: Literal["cp", "tucker"] = "cp"
    reference: Literal["random", "mean"] = "random"
    share: float = Field(0.1, gt=0, le=1)
    epochs: int = Field(100, ge=0)
    batch: int = Field(32, ge=2)
    starts: int = Field(1, ge=1)
    learning_rate: float = Field(0.01, gt=0)
    decay: float = Field(0.8, gt=0, le=1)
    warm: float = Field(0.2, ge=0, le=1)
    chunk: int = Field(1024, ge=1)
    seed: int = 0

    def ranks(self, names: Iterable[str]) -> dict[str, int]:
        """The rank of every tensor.

        Raises:
            BadInput: a rank for a tensor that is not there.
        """
        if isinstance(self.rank, int):
            return dict.fromkeys(names, self.rank)
        known = list(names)
        for name in self.rank:
            if name not in known:
                raise unknown_name(name, known, "rank", expected="a parameter ({})", otherwise="mend its name")
        return {name: self.rank.get(name, 1) for name in known}


#: the share of coefficients that a warm start keeps
WARM_SHARE = 0.999
#: how often in a run the learning rate falls
FALLS = 10
