"""What an audit says: ``audit.json``, from which everything else in the folder is drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from unmerge.auditing.licences import LicenceReport
from unmerge.core.errors import BadInput
from unmerge.core.records import Environment, read_json
from unmerge.decomposition import Decomposition
from unmerge.recipes.record import RecoveredRecipe
from unmerge.recipes.recover import FOUND
from unmerge.verification.record import Verification, VerifiedComponent

SCHEMA: Literal["unmerge/audit/1"] = "unmerge/audit/1"

#: from this share of identical weights on it is as good as proved
_PROVED = 0.999
#: the record's file, in the audit's folder
RECORD = "audit.json"


class GateResult(BaseModel):
    """One condition of ``--fail-on``: as it was asked, whether it holds (then the audit fails), and the numbers behind that."""

    condition: str
    failed: bool
    because: str


class Audit(BaseModel):
    """Everything on one target.

    Attributes:
        name: of the target, its folder's.
        base_name: of the base; where none was given, the one that the target records, or None.
        made: when, in UTC, as ISO 8601 writes it.
        decomposition: the bill of materials, as ``unmerge decompose`` writes it.
        recipe: as ``unmerge recover`` writes it; None where no component was found.
        verification: as ``unmerge verify`` writes it; None where no tasks were given.
        licences: from the cards of the target, its base and its components.
        gates: what ``--fail-on`` asked.
    """

    model_config = ConfigDict(serialize_by_alias=True)

    # "schema" is the key in JSON; as an attribute it would hide one of pydantic's
    schema_: Literal["unmerge/audit/1"] = Field(SCHEMA, alias="schema")
    name: str
    base_name: str | None
    made: str
    decomposition: Decomposition
    recipe: RecoveredRecipe | None = None
    verification: Verification | None = None
    licences: LicenceReport
    gates: list[GateResult] = []
    environment: Environment

    @property
    def proved(self) -> bool:
        """Whether a recipe makes the target, weight for weight: then nothing is unexplained, whatever one coefficient for each component leaves."""
        return self.recipe is not None and self.recipe.answer == FOUND and (self.recipe.identical_share or 0.0) >= _PROVED

    def verified(self, name: str) -> VerifiedComponent | None:
        """What removing a component did; None where that was not measured."""
        measured = self.verification.components if self.verification else []
        return next((component for component in measured if component.removed == name), None)


def read_audit(file: Path) -> Audit:
    """Read an audit's record.

    Raises:
        BadInput: no such file, or another record.
    """
    raw = read_json(file, "an audit's record")
    try:
        return Audit.model_validate(raw)
    except ValidationError as error:
        found = raw.get("schema", "no schema") if isinstance(raw, dict) else "no mapping"
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise BadInput(
            expected=f"a record of the schema {SCHEMA}", found=f"{found} ({where}: {first['msg']})", where=file, hint="run the audit again"
        ) from error
