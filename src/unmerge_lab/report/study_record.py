"""The records of a study, and their Parquet files.

    DIR/cells.parquet      a Cell a row: one target, one space, one method
    DIR/summary.parquet    a Summary a row: means over the targets of a group, a merge, a dtype
    DIR/study.json         the StudyRecord: design, versions, and the alignment of the unknown group

They are defined here, below the studies that write them, since reports read them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from unmerge.core.errors import BadInput, need
from unmerge.core.records import Environment, Source, cannot_write

SCHEMA = "unmerge/study/1"
CELLS, SUMMARY, RECORD = "cells.parquet", "summary.parquet", "study.json"
#: stands for every merge method, every kind of adapter, every dtype, in a Summary
MERGES, ADAPTERS, DTYPES = "merges", "adapters", "all"

Row = TypeVar("Row", bound=BaseModel)


class Cell(BaseModel):
    """What one method, in one space, said of one target.

    Attributes:
        target: its name.
        group, merge, is_adapter, dtype, seed, repeat, weighting: how it was made.
        contents, weights: its components, as in the recipe.
        truth: those that are in the dictionary.
        named: what the method named.
        coefficients: of the dictionary's atoms, in its order.
        ranking: what the method ranks them by: the signed contribution c_i ||v_i||; a test's containment or 1 - p.
        precision, recall, perfect, sparsity: see ``studies.metrics``; sparsity is the number of named components.
        exact_precision, exact_recall: the same of the components that are claimed to be the very atoms; None for methods that do not tell.
        reconstruction_error: ||t - t_hat|| / ||t||, over all weights.
        one_minus_cosine_squared: over all weights.
        effective_components: exp of the entropy of the contributions.
        coefficient_error: the largest relative one, over the known components.
        seconds: of the whole decomposition, opened files given.
        solver_seconds: of the solver, inner products given; None where they are not apart.
        memory_mib: by how much the process's resident memory grew at its peak.
    """

    target: str
    group: str
    merge: str
    is_adapter: bool
    dtype: str
    seed: int
    repeat: int
    weighting: str
    contents: list[str]
    weights: list[float]
    truth: list[str]
    space: str
    method: str
    named: list[str]
    coefficients: list[float]
    ranking: list[float]
    precision: float
    recall: float | None
    perfect: bool
    sparsity: int
    exact_precision: float | None = None
    exact_recall: float | None = None
    reconstruction_error: float
    one_minus_cosine_squared: float
    effective_components: float
    coefficient_error: float | None
    seconds: float
    solver_seconds: float | None
    memory_mib: float


class Summary(BaseModel):
    """Means over some targets; the coefficient error is the largest, for it is a bound that is asked for; memory too.

    ``merge`` may be ``merges`` (all merge methods) or ``adapters`` (all kinds), ``dtype`` may be ``all``.
    """

    group: str
    merge: str
    is_adapter: bool
    dtype: str
    space: str
    method: str
    targets: int
    precision: float
    recall: float | None
    perfect: float
    sparsity: float
    exact_precision: float | None = None
    exact_recall: float | None = None
    reconstruction_error: float
    one_minus_cosine_squared: float
    effective_components: float
    median_coefficient_error: float | None
    largest_coefficient_error: float | None
    seconds: float
    solver_seconds: float | None
    memory_mib: float


class Alignment(BaseModel):
    """How close, in words, the atoms nearest to unknown targets are to what is in these.

    Attributes:
        space, method: who ranked the atoms.
        measure: what similarity.
        targets: how many, all of the unknown group.
        value, low, high: the mean over targets, and its 95% bootstrap interval.
        baseline, baseline_low, baseline_high: the same for as many random atoms, 95% of permutations.
        p_value: the share of permutations that do at least as well.
    """

    space: str
    method: str
    measure: str
    targets: int
    value: float
    low: float
    high: float
    baseline: float
    baseline_low: float
    baseline_high: float
    p_value: float


class StudyRecord(BaseModel):
    """A study: how it was designed, what it ran on, and what is not in the Parquet files.

    Attributes:
        design: as read from STUDY.yml.
        drawn: the weight of components weighted alike, and the least and the most of others.
        base: of the zoo.
        dictionary: the atoms, in order.
        targets: how many were made.
        cells: how many decompositions.
        jobs: processes.
        seconds: of the last run; an interrupted study has several.
        resumed: cells that earlier runs had finished.
    """

    model_config = ConfigDict(serialize_by_alias=True)

    schema_: str = Field(SCHEMA, alias="schema")
    design: dict[str, Any]
    drawn: dict[str, float]
    base: Source
    dictionary: dict[str, Source]
    targets: int
    cells: int
    jobs: int
    seconds: float
    resumed: int
    alignment: list[Alignment]
    environment: Environment


def write_rows(file: Path, kind: type[Row], rows: Sequence[Row]) -> None:
    """Write records as a Parquet file, atomically; columns and types are those of the record."""
    arrow, parquet = need("pyarrow", "study"), need("pyarrow.parquet", "study")
    number, text = arrow.float64(), arrow.string()
    types: dict[Any, Any] = {str: text, int: arrow.int64(), float: number, float | None: number, bool: arrow.bool_()}
    types |= {list[str]: arrow.list_(text), list[float]: arrow.list_(number)}
    schema = arrow.schema([(name, types[field.annotation]) for name, field in kind.model_fields.items()])
    beside = file.with_name(f".{file.name}")
    try:
        parquet.write_table(arrow.Table.from_pylist([row.model_dump() for row in rows], schema=schema), beside)
        beside.replace(file)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise cannot_write(file, error) from error


def read_rows(file: Path, kind: type[Row]) -> list[Row]:
    """Read them back.

    Raises:
        BadInput: no such file, or no Parquet.
    """
    arrow, parquet = need("pyarrow", "study"), need("pyarrow.parquet", "study")
    try:
        return [kind.model_validate(row) for row in parquet.read_table(file).to_pylist()]
    except (OSError, arrow.ArrowException) as error:
        raise BadInput(expected="a study's Parquet file", found=str(error), where=file, hint="run 'unmerge study' again") from error
