"""What an audit says: ``audit.json``, from which everything else in the folder is drawn."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from unmerge.audit.licences import LicenceReport
from unmerge.core.records import Environment
from unmerge.decomposition import Decomposition
from unmerge.verify.record import Verification, VerifiedComponent

SCHEMA = "unmerge/audit/1"


class GateResult(BaseModel):
    """One condition of ``--fail-on``: as it was asked, whether it holds (then the audit fails), and the numbers behind that."""

    condition: str
    failed: bool
    because: str


class Audit(BaseModel):
    """Everything on one target.

    Attributes:
        name: of the target, its folder's.
        base_name: of the base.
        made: when, in UTC, as ISO 8601 writes it.
        decomposition: the bill of materials, as ``unmerge decompose`` writes it.
        recipe: as ``unmerge recover`` writes it; None where it was not looked for.
        verification: as ``unmerge verify`` writes it; None where no tasks were given.
        licences: from the cards of the target, its base and its components.
        gates: what ``--fail-on`` asked.
    """

    model_config = ConfigDict(serialize_by_alias=True)

    # "schema" is the key in JSON; as an attribute it would hide one of pydantic's
    schema_: str = Field(SCHEMA, alias="schema")
    name: str
    base_name: str
    made: str
    decomposition: Decomposition
    recipe: dict[str, Any] | None = None
    verification: Verification | None = None
    licences: LicenceReport
    gates: list[GateResult] = []
    environment: Environment

    def verified(self, name: str) -> VerifiedComponent | None:
        """What removing a component did; None where that was not measured."""
        measured = self.verification.components if self.verification else []
        return next((component for component in measured if component.removed == name), None)
