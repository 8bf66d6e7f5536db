"""The records of a folder of circuit experiments."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from unmerge.core.errors import BadInput
from unmerge.core.records import read_json
from unmerge_lab.circuits.experiments import BASELINES, INTERVENTIONS, MEASURED, TOY
from unmerge_lab.circuits.language_study import RECORD as LANGUAGE

#: what ``unmerge_lab.benchmarks.circuits_frontier`` writes
FRONTIER = "frontier.json"
Record = dict[str, Any]
Design = tuple[int, int]


@dataclass(frozen=True)
class ToyRecords:
    """Everything about one kind of toy model.

    Attributes:
        toy: what was trained.
        found: measured decompositions by (subnetworks, rank).
        interventions: where there are any.
        baselines: where there are any.
    """

    toy: Record
    found: dict[Design, Record]
    interventions: Record | None
    baselines: Record | None

    def reconstructions(self, design: Design) -> list[float]:
        """Of every run."""
        return [row["reconstruction"] for row in self.found[design]["rows"]]

    def mean(self, design: Design) -> float:
        """The mean reconstruction."""
        return fmean(self.reconstructions(design))

    def selectivities(self, key: str = "selectivity") -> list[float]:
        """Of every circuit of every run."""
        rows = self.interventions["rows"] if self.interventions else []
        return [circuit[key] for row in rows for circuit in row["circuits"] if key in circuit]

    @property
    def seconds(self) -> float:
        """Of processor time, for everything that is recorded."""
        others = [own for own in (self.interventions, self.baselines) if own]
        return float(sum(own["seconds"] for own in (self.toy, *self.found.values(), *others)))


@dataclass(frozen=True)
class CircuitRecords:
    """All experiments of a folder: toy models by kind, the language model, and floors against training."""

    toys: dict[str, ToyRecords]
    language: Record | None
    frontier: Record | None = None

    @staticmethod
    def read(folder: Path) -> CircuitRecords:
        """Read every experiment below a folder.

        Raises:
            BadInput: there is none.
        """
        toys = {}
        for file in sorted(folder.glob(f"*/{TOY}")):
            record = read_json(file, "a toy experiment")
            measured = [read_json(path, "a measured decomposition") for path in sorted(file.parent.glob(f"found/*/{MEASURED}"))]
            found = {(each["settings"]["subnetworks"], each["settings"]["rank"]): each for each in measured}
            others = [read_json(path, "a record") if (path := file.parent / name).exists() else None for name in (INTERVENTIONS, BASELINES)]
            toys[record["toy"]] = ToyRecords(record, dict(sorted(found.items())), *others)
        languages = [read_json(file, "the language model's record") for file in sorted(folder.glob(f"*/{LANGUAGE}"))]
        if not toys and not languages:
            raise BadInput(
                expected="experiments that 'unmerge circuits train' and 'decompose' made", found="none", where=folder, hint="run 'make circuits'"
            )
        frontier = folder / FRONTIER
        floors = read_json(frontier, "floors against training") if frontier.exists() else None
        return CircuitRecords(toys, languages[0] if languages else None, floors)
