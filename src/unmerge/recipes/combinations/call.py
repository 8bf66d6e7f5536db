"""A call of PEFT's ``add_weighted_adapter`` as data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Call:
    """What PEFT was asked to combine.

    Attributes:
        adapters: names of atoms, in order; sums in floating point depend on it, and so does ``cat``.
        weights: one for each.
        combination_type: as PEFT names it.
        density: the share kept, where the kind prunes.
        majority_sign_method: "total" or "frequency", where the kind elects signs.
        svd_rank: the rank of the result, where it is cut by an SVD.
    """

    adapters: tuple[str, ...]
    weights: tuple[float, ...]
    combination_type: str
    density: float | None = None
    majority_sign_method: str = "total"
    svd_rank: int | None = None

    @property
    def prunes(self) -> bool:
        """Whether ``density`` counts."""
        return self.draws or self.combination_type.startswith(("ties", "magnitude_prune"))

    @property
    def elects(self) -> bool:
        """Whether ``majority_sign_method`` counts."""
        return "ties" in self.combination_type

    @property
    def truncates(self) -> bool:
        """Whether the result is cut by an SVD, so that its factors are known up to signs only."""
        return self.combination_type.endswith("svd")

    @property
    def draws(self) -> bool:
        """Whether masks are drawn at random."""
        return self.combination_type.startswith("dare")

    def arguments(self) -> dict[str, Any]:
        """The arguments that count, by name."""
        given: dict[str, Any] = {"adapters": list(self.adapters), "weights": list(self.weights), "combination_type": self.combination_type}
        if self.prunes:
            given["density"] = self.density
        if self.elects:
            given["majority_sign_method"] = self.majority_sign_method
        if self.truncates:
            given["svd_rank"] = self.svd_rank
        return given
