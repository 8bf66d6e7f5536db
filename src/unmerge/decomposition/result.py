"""What a decomposition says: the JSON that ``unmerge decompose --json`` writes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from unmerge.core.columns import Columns, frame_of, html_table
from unmerge.core.errors import BadInput, unknown_name
from unmerge.core.records import Environment, Source
from unmerge.decomposition.ablation_record import AblationRecord
from unmerge.decomposition.base_check import BaseCheck

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

SCHEMA = "unmerge/decomposition/1"


@runtime_checkable
class Ablate(Protocol):
    """Removes components from a target, and writes what is left."""

    def __call__(self, result: Decomposition, names: Sequence[str], out: Path, as_adapter: bool, /) -> AblationRecord: ...


#: of a component: the very atom; another training of it, or a sibling; not to be told
Identity = Literal["exact", "relative", "undecided"]


class ProfilePart(BaseModel):
    """The coefficient with which a component acts in one part of the model.

    Attributes:
        layers: the layers of the part, such as ``0-7`` or ``3``; empty for tensors outside the layers.
        kind: the modules of the part, such as ``mlp`` or ``self_attn.q_proj``; empty for all of them.
        coefficient: that acted there.
        interval: of the coefficient; None where it has none.
    """

    layers: str
    kind: str
    coefficient: float
    interval: tuple[float, float] | None = None


class Component(BaseModel):
    """An atom found in the target.

    Attributes:
        name: the atom.
        coefficient: the one that acted; below zero where the atom was subtracted.
        interval: of the coefficient; None for a method that has none.
        share: ||c v|| / ||t||.
        containment, p_value, q_value: of the certificate; None for other methods.
        group: atoms that it cannot be told from.
        agreement: 1 where all tensors give one coefficient, 0 where they differ by as much as the coefficient.
        by_tensor: the coefficient that each tensor gives by itself.
        identity: whether the target holds this very atom (``exact``) or another one of its family (``relative``); None for a method that
            does not test it, and in older records.
        similarity: of a relative to the atom, from 0 to 1; None where it was not measured.
        similarity_interval: of the similarity.
        uniform: whether one coefficient is true in the whole model; None where it was not tested.
        profile: the coefficients by layers and kinds of module; empty where one coefficient is true everywhere.
    """

    name: str
    coefficient: float
    interval: tuple[float, float] | None = None
    share: float
    containment: float | None = None
    p_value: float | None = None
    q_value: float | None = None
    group: list[str] = []
    agreement: float | None = None
    by_tensor: dict[str, float] = {}
    identity: Identity | None = None
    similarity: float | None = None
    similarity_interval: tuple[float, float] | None = None
    uniform: bool | None = None
    profile: list[ProfilePart] = []


class Absent(BaseModel):
    """An atom that is not named.

    Attributes:
        name: the atom.
        coefficient: what the method gave it.
        containment, p_value: of the certificate; None for other methods.
        detection_limit: the smallest coefficient at which it would have been seen; None where none would do.
        variant_of: the component that it shows for: the atom is too like it not to, and was told from it.
        reason: why it was not looked for; None where it was.
    """

    name: str
    coefficient: float
    containment: float | None = None
    p_value: float | None = None
    detection_limit: float | None = None
    variant_of: str | None = None
    reason: str | None = None


class Unexplained(BaseModel):
    """What the named components leave.

    Attributes:
        share: of the target's squared norm, after all atoms at their coefficients.
        rounding_share: what rounding alone would leave of a target made of the components; None without the certificate, or where
            nothing was rounded.
        rank: of the rest, above its noise, in most of the tensors; None without the certificate, or where no tensor can tell.
        components: how many atoms of the dictionary's usual rank that is, at least; weak ones drown in noise.
    """

    share: float
    rounding_share: float | None = None
    rank: int | None = None
    components: int | None = None


class TestReport(BaseModel):
    """The test behind a certificate.

    Attributes:
        hypothesis: what a small p-value speaks against.
        level: of the false discovery rate (Benjamini and Hochberg) at which atoms are named.
        confidence: level of the intervals.
        estimator: how the coefficients were found.
        blind: tensors that the target's signal fills; they were not counted.
        by_correlation: atoms without a low rank, which were tested by correlation.
        trimmed: whether small changes were trimmed, as ties does: then no one coefficient acted.
        by_weights: components that passed no test, but without which the others do not explain the weights within rounding.
        svd_error: the largest ||T v - s u|| / s of the target's singular triples; None where all decompositions were full.
        stand_ins: how many relatives were made up for the null distribution, because the dictionary is small.
        rounding_order: in which order the merge rounded, where components and rounding explain the weights and one order explains them
            better than the others; None where nothing was rounded, something unknown is in the target, or several orders tie.
        rounding_identical: the share of the changed weights that a merge of the components in this order gives exactly; of the orders
            that tie, in the simplest of them.
        rounding_ties: the orders that explain the weights equally well; empty where one can be told.
        rounding_sequence: the components in the order in which they were added one after another; empty where they were added together.
    """

    hypothesis: str
    level: float
    confidence: float
    estimator: str
    blind: list[str] = []
    by_correlation: list[str] = []
    by_weights: list[str] = []
    trimmed: bool = False
    stand_ins: int = 0
    svd_error: float | None = None
    rounding_order: str | None = None
    rounding_identical: float | None = None
    rounding_ties: list[str] = []
    rounding_sequence: list[str] = []


class AlignmentOperation(BaseModel):
    """Something that made the target's weights lie otherwise than the base's, and that was undone before they were subtracted.

    Attributes:
        operation: what had been done to the weights.
        tensors: names of the base's tensors that it concerns.
        detail: a sentence about it.
    """

    operation: str
    tensors: list[str]
    detail: str


class SkippedTensor(BaseModel):
    """A tensor that was left out, and why."""

    tensor: str
    reason: str


class MatchedTensors(BaseModel):
    """Tensors that a task vector calls otherwise than the base (without one: than the target), and that were matched by their structure.

    Attributes:
        vector: the target or the atom.
        own: what its names begin with, a star for each number.
        reference: what the names begin with that they stand for.
        tensors: how many there are.
        example: one of them, by both names.
    """

    vector: str
    own: str
    reference: str
    tensors: int
    example: tuple[str, str]


class SolverReport(BaseModel):
    """How the solver ended: violation of its optimality conditions, steps, and why it stopped."""

    violation: float | None
    steps: int
    stopped: str


class Decomposition(BaseModel):
    """The bill of materials of one target.

    Attributes:
        method: how the coefficients were found.
        modules: a regular expression that is found in the names of the tensors that were looked at; None for all.
        device: where large tensors were worked on.
        space: where the method looked; the keys below are of all weights, unless they say otherwise.
        reconstruction_error: ||t - t_hat|| / ||t||.
        reconstruction_error_in_space: the same over the weights that the method saw; None where the target changes none of them.
        one_minus_cosine_squared: 1 - cos^2 between t and t_hat, the published study's error.
        condition_number: of the atoms' cosines, over the weights that the method saw.
        tensors: how many tensors the method saw something change in.
        entries: how many weights it saw.
        norm: ||t||.
        solver: how the solver ended; None for the certificate.
        test: the certificate's; None for other methods.
        alignment: what was undone in the target before the base was subtracted; empty where both are laid out alike.
    """

    model_config = ConfigDict(serialize_by_alias=True)

    # "schema" is the key in JSON; as an attribute it would hide one of pydantic's
    schema_: str = Field(SCHEMA, alias="schema")
    method: str
    space: str = "exact"
    modules: str | None = None
    device: str = "cpu"
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
    solver: SolverReport | None = None
    test: TestReport | None = None
    skipped: list[SkippedTensor]
    alignment: list[AlignmentOperation] = []
    matched_names: list[MatchedTensors] = []
    base_check: BaseCheck | None
    warnings: list[str]
    seconds: float
    environment: Environment

    #: takes components out of the very inputs that were decomposed; a record that was read has none
    _ablate: Ablate | None = PrivateAttr(None)

    def coefficient(self, name: str) -> float | None:
        """The coefficient of a named component, or None."""
        return next((component.coefficient for component in self.components if component.name == name), None)

    def for_ablation(self, ablate: Ablate) -> Decomposition:
        """The same, with a function that removes components from the inputs that were decomposed."""
        self._ablate = ablate
        return self

    def ablate(self, *names: str, out: Path | str, as_adapter: bool = False) -> AblationRecord:
        """Subtract components from the target, each with the coefficient that was found, and write what is left.

        Args:
            names: of components.
            out: the folder to make.
            as_adapter: write an adapter that does the subtraction when it is loaded on the target.

        Returns:
            The record, as ``unmerge.ablate`` returns it.

        Raises:
            BadInput: a name that is no component's, or a result that was read from a file, without its target.
            BadOutput: the folder exists, or cannot be written.
        """
        for name in names:
            if self.coefficient(name) is None:
                raise unknown_name(name, [component.name for component in self.components], "ablate", expected="a component of the target ({})")
        if self._ablate is None:
            hint = "call unmerge.ablate with target, dictionary and base"
            raise BadInput(expected="a result of unmerge.decompose, which has its target", found="a record", where="ablate", hint=hint)
        return self._ablate(self, names, Path(out), as_adapter)

    def to_frame(self) -> DataFrame | Columns:
        """The components, one a row: a pandas DataFrame, or a dict of columns where pandas is not installed."""
        return frame_of(self._columns())

    def plot(self, axes: Axes | None = None) -> Axes:
        """Draw the coefficients with their intervals.

        Args:
            axes: matplotlib's, to draw on; those of a new figure where none are given.

        Raises:
            MissingExtra: matplotlib is not installed.
        """
        from unmerge.decomposition.plot import plot_coefficients

        return plot_coefficients(self, axes)

    def _repr_html_(self) -> str:
        error = f"reconstruction error {self.reconstruction_error:.4f}, unexplained {self.unexplained.share:.2%} of the squared norm"
        return html_table(self._columns(), f"{self.target.path}, by {self.method}: {error}, {len(self.absent)} atoms not named")

    def _columns(self) -> Columns:
        found = self.components
        low, high = ([one.interval[end] if one.interval else None for one in found] for end in (0, 1))
        names = ("name", "coefficient", "share", "containment", "p_value", "q_value", "identity", "group")
        columns = {name: [getattr(one, name) for one in found] for name in names}
        return {"name": columns.pop("name"), "coefficient": columns.pop("coefficient"), "low": low, "high": high, **columns}
