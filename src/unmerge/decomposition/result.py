"""What a decomposition says: the JSON that ``unmerge decompose --json`` writes."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from unmerge.core.records import Environment, Source
from unmerge.decomposition.base_check import BaseCheck

SCHEMA = "unmerge/decomposition/1"


class Component(BaseModel):
    """An atom found in the target.

    Attributes:
        name: the atom.
        coefficient: the one that acted.
        interval: of the coefficient; None for a method that has none.
        share: ||c v|| / ||t||.
        containment, p_value, q_value: of the certificate; None for other methods.
        group: atoms that it cannot be told from.
    """

    name: str
    coefficient: float
    interval: tuple[float, float] | None = None
    share: float
    containment: float | None = None
    p_value: float | None = None
    q_value: float | None = None
    group: list[str] = []


class Absent(BaseModel):
    """An atom that is not named. ``coefficient`` is what the method gave it; the rest is the certificate's."""

    name: str
    coefficient: float
    containment: float | None = None
    p_value: float | None = None
    detection_limit: float | None = None


class Unexplained(BaseModel):
    """What the named components leave.

    Attributes:
        share: of the target's squared norm, after all atoms at their coefficients.
        rounding_share: what rounding alone would leave; None without the certificate.
        rank, components: estimates for the rest; None without the certificate.
    """

    share: float
    rounding_share: float | None = None
    rank: int | None = None
    components: int | None = None


class SkippedTensor(BaseModel):
    """A tensor that was left out, and why."""

    tensor: str
    reason: str


class SolverReport(BaseModel):
    """How the solver ended: violation of its optimality conditions, steps, and why it stopped."""

    violation: float | None
    steps: int
    stopped: str


class Decomposition(BaseModel):
    """The bill of materials of one target.

    Attributes:
        method: how the coefficients were found.
        space: where the method looked; the keys below are of all weights, unless they say otherwise.
        reconstruction_error: ||t - t_hat|| / ||t||.
        reconstruction_error_in_space: the same over the weights that the method saw; None where the target changes none of them.
        one_minus_cosine_squared: 1 - cos^2 between t and t_hat, the published study's error.
        condition_number: of the atoms' cosines, over the weights that the method saw.
        tensors: how many tensors the method saw something change in.
        entries: how many weights it saw.
        norm: ||t||.
    """

    model_config = ConfigDict(serialize_by_alias=True)

    # "schema" is the key in JSON; as an attribute it would hide one of pydantic's
    schema_: str = Field(SCHEMA, alias="schema")
    method: str
    space: str = "exact"
    target: Source
    base: Source | None
    dictionary: dict[str, Source]
    components: list[Component]
    absent: list[Absent]
    unexplained: Unexplained
    reconstruction_error: float
    reconstruction_error_in_space: float | None = None
    one_minus_cosine_squared: float
    condition_number: float
    norm: float
    tensors: int
    entries: int | None = None
    solver: SolverReport
    skipped: list[SkippedTensor]
    base_check: BaseCheck | None
    warnings: list[str]
    seconds: float
    environment: Environment

    def coefficient(self, name: str) -> float | None:
        """The coefficient of a named component, or None."""
        return next((component.coefficient for component in self.components if component.name == name), None)
