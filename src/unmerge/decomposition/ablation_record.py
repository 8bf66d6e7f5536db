"""What was subtracted from a target, and what stays in it: the JSON that ``unmerge ablate`` writes beside its result."""

from __future__ import annotations

from pydantic import BaseModel

from unmerge.core.records import Environment, Source


class Remaining(BaseModel):
    """What of a component stays in the target.

    Attributes:
        component: its name.
        tensor: of the target, in which it stays.
        reason: why, and which rows where it is not all of them.
    """

    component: str
    tensor: str
    reason: str

    def __str__(self) -> str:
        return f"what {self.component} did to {self.tensor} stays in the target: {self.reason}"


class AblationRecord(BaseModel):
    """What was subtracted from what: coefficients and inputs by the component's name.

    Attributes:
        left_out: files of the target that hold its weights in another format, or an adapter's; copied, they would bring the component back.
        remaining: what of the components stays in the target.
    """

    target: Source
    removed: dict[str, float]
    components: dict[str, Source]
    form: str
    left_out: list[str] = []
    remaining: list[Remaining] = []
    environment: Environment
