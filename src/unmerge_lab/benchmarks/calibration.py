"""The certificate on families of really trained adapters: are its p-values calibrated, and is a relative ever taken for the atom itself?

    python -m unmerge_lab.benchmarks.calibration [--share 1] [--part 0/2] [--only GROUP ...] [--out runs/calibration]

unknown    no atom of the dictionary is in the target, but relatives of its atoms are
mixed      half of the target's adapters are atoms, among them one beside its relatives; the others are relatives or strangers
known      every adapter of the target is an atom, and lies beside its relatives

Targets are merged by hand at weights .3 to 1.2, in float32, and in bfloat16 with one rounding of the sum. A dictionary has 3, 8, about 20, 50 or
200 atoms; the larger ones pool several of ``make families``. Each target is a line of JSON in the folder; what is there is not measured again.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import BaseModel

from unmerge.checkpoints import Adapter, Checkpoint
from unmerge.core.journal import Journal
from unmerge.core.records import environment, write_json
from unmerge.decomposition import Decomposition, Dictionary, decompose, open_base, open_vector
from unmerge.decomposition.result import Identity
from unmerge.vectors import Held, gram
from unmerge_lab import embedded_zoo
from unmerge_lab.benchmarks.calibration_summary import show, summary
from unmerge_lab.benchmarks.zoo_targets import write_model
from unmerge_lab.studies.families import Member, read_manifests, relation
from unmerge_lab.studies.families.design import RELATIONS
from unmerge_lab.studies.families.manifest import adapter_folder
from unmerge_lab.zoo.embedded import BASE

Group = Literal["unknown", "mixed", "known"]
COUNTS: dict[Group, int] = {"unknown": 240, "mixed": 160, "known": 80}
#: atoms of a dictionary; None for what one of the families has
SIZES = (3, 8, None, 50, 200)
WEIGHTS = (0.3, 1.2)
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_FAMILIES = ("run", "seeds", "start", "author", "unrelated")


class Verdict(BaseModel):
    """What the certificate said of one atom.

    Attributes:
        name: of the atom, with its dictionary.
        weight: in the target; None where it is not in it.
        relation, cosine: to the closest adapter in the target; of an atom that is in it, to the closest other atom of the dictionary.
        named: as a component, or in the group of one.
        coefficient, interval, p_value, containment, identity, similarity, group: as in the result.
    """

    name: str
    weight: float | None
    relation: str
    cosine: float
    named: bool
    coefficient: float
    interval: tuple[float, float] | None = None
    p_value: float | None = None
    containment: float | None = None
    identity: Identity | None = None
    similarity: float | None = None
    group: list[str] = []


class Trial(BaseModel):
    """One target.

    Attributes:
        name: group and number.
        focus: the family of the target's first adapter.
        modules: that the dictionary's own authors change.
        atoms: how many there were.
        target: weights, by adapter.
        unexplained, rounding_share: as in the result.
        failure: the error that took the place of a result.
    """

    name: str
    group: Group
    focus: str
    modules: str
    dtype: str
    atoms: int
    target: dict[str, float]
    verdicts: list[Verdict]
    unexplained: float | None = None
    rounding_share: float | None = None
    seconds: float
    failure: str | None = None


@dataclass(frozen=True)
class Case:
    """What is merged, and what is the dictionary."""

    name: str
    group: Group
    focus: Member
    dtype: str
    weights: Mapping[str, float]
    atoms: tuple[str, ...]


class Pool:
    """All adapters of the families, by their dictionary and name."""

    def __init__(self, families: Path, base: Checkpoint) -> None:
        self.families, self.base = families, base
        self.dictionaries = [[*manifest.members] for manifest in read_manifests(families)]
        self.members = {key(member): member for members in self.dictionaries for member in members}
        changed = {members[0].dictionary: {member.settings.modules for member in members} for members in self.dictionaries}
        self.modules = {dictionary: found.pop() if len(found) == 1 else "several" for dictionary, found in changed.items()}
        self._open: dict[str, Adapter] = {}

    def adapter(self, name: str) -> Adapter:
        """An adapter under its whole name."""
        if name not in self._open:
            self._open[name] = replace(Adapter.open(adapter_folder(self.families, self.members[name]), self.base), name=name)
        return self._open[name]

    def case(self, group: Group, place: int) -> Case:
        """Draw a target and a dictionary; the same for the same place and the same families."""
        draws = random.Random(f"calibration/{group}/{place}")
        own = self.dictionaries[place % len(self.dictionaries)]
        family = _FAMILIES[draws.randrange(len(_FAMILIES))]
        focus = draws.choice([member for member in own if member.family == family])
        others = draws.sample([member for member in own if member is not focus], draws.randint(0, 3) if group == "unknown" else draws.randint(1, 3))
        inside = [focus, *others]
        known = {"unknown": [], "mixed": inside[: (len(inside) + 1) // 2], "known": inside}[group]
        size = SIZES[(place + place // len(self.dictionaries)) % len(SIZES)]  # each dictionary in each size
        return Case(
            name=f"{group}-{place:03d}",
            group=group,
            focus=focus,
            dtype=draws.choice(list(DTYPES)),
            weights={key(member): round(draws.uniform(*WEIGHTS), 2) for member in inside},
            atoms=tuple(map(key, self._atoms(known, inside, own, size, draws))),
        )

    def _atoms(self, known: list[Member], inside: list[Member], own: list[Member], size: int | None, draws: random.Random) -> list[Member]:
        """The known ones; then relatives of what is inside, and others, by turns; then members of other dictionaries."""
        free = [member for member in own if member not in inside]
        draws.shuffle(free)
        # a small dictionary is not to lack the relatives
        relatives = [member for member in free if any(relation(member, other) in RELATIONS[:4] for other in inside)]
        strangers = [member for member in free if member not in relatives]
        count = len(known) + len(free) if size is None else max(size, len(known) + 1)
        half = max(1, (count - len(known)) // 2)
        ordered = [*relatives[:half], *strangers, *relatives[half:]]
        away = [member for members in self.dictionaries if members is not own for member in members]
        draws.shuffle(away)
        chosen = [*known, *ordered, *away][:count]
        draws.shuffle(chosen)
        return chosen


@dataclass(frozen=True)
class Work:
    """One trial being made."""

    pool: Pool
    case: Case

    def trial(self, scratch: Path) -> Trial:
        """Merge, decompose, and compare with the truth; a decomposition that fails is a finding too."""
        started = time.monotonic()
        target = open_vector(self._merged(scratch), self.pool.base)
        made = Trial(
            name=self.case.name,
            group=self.case.group,
            focus=self.case.focus.family,
            modules=self.pool.modules[self.case.focus.dictionary],
            dtype=self.case.dtype,
            atoms=len(self.case.atoms),
            target=dict(self.case.weights),
            verdicts=[],
            seconds=0.0,
        )
        try:
            result = decompose(target, Dictionary(tuple(map(self.pool.adapter, self.case.atoms)), ()), self.pool.base)
        except Exception as error:  # noqa: BLE001, whatever it is, the other targets are measured
            return made.model_copy(update={"failure": f"{type(error).__name__}: {error}"})
        said = {"verdicts": self._verdicts(result), "unexplained": result.unexplained.share, "rounding_share": result.unexplained.rounding_share}
        return made.model_copy(update={**said, "seconds": round(time.monotonic() - started, 2)})

    def _verdicts(self, result: Decomposition) -> list[Verdict]:
        """What is said of every atom."""
        named = {component.name: component for component in result.components}
        groups = {other: component for component in result.components for other in component.group}
        absent = {entry.name: entry for entry in result.absent}
        verdicts = []
        for name in self.case.atoms:
            component = named.get(name)
            entry = component or absent.get(name)
            closest, cosine = self._closest(name)
            verdicts.append(
                Verdict(
                    name=name,
                    weight=self.case.weights.get(name),
                    relation=closest,
                    cosine=cosine,
                    named=component is not None or name in groups,
                    coefficient=entry.coefficient if entry else 0.0,
                    interval=component.interval if component else None,
                    p_value=entry.p_value if entry else None,
                    containment=entry.containment if entry else None,
                    identity=component.identity if component else None,
                    similarity=component.similarity if component else None,
                    group=component.group if component else [groups[name].name] if name in groups else [],
                )
            )
        return verdicts

    def _merged(self, scratch: Path) -> Path:
        """W + sum of c B A in float32, then once in the target's dtype."""
        base, dtype, tensors = self.pool.base, DTYPES[self.case.dtype], {}
        parts = [(self.pool.adapter(name), weight) for name, weight in self.case.weights.items()]
        for tensor in base.shapes:
            total = base.read(tensor).float()
            for adapter, weight in parts:
                if tensor in adapter.shapes:
                    total = total + weight * adapter.delta(tensor).dense().float()
            tensors[tensor] = total.to(dtype)
        return write_model(tensors, base, self.case.dtype, scratch / "target")

    @cached_property
    def _cosines(self) -> tuple[list[str], np.ndarray]:
        names = list(dict.fromkeys([*self.case.atoms, *self.case.weights]))
        products = gram([self.pool.adapter(name) for name in names], Held("none", {})).gram.sum(0)
        lengths = np.sqrt(np.diag(products))
        return names, np.abs(products / np.outer(lengths, lengths))

    def _closest(self, name: str) -> tuple[str, float]:
        names, cosines = self._cosines
        others = self.case.weights if name not in self.case.weights else self.case.atoms
        kinds = [relation(self.pool.members[name], self.pool.members[other]) for other in others if other != name]
        near = [float(cosines[names.index(name), names.index(other)]) for other in others if other != name]
        return min(kinds, key=RELATIONS.index, default="unrelated"), max(near, default=0.0)


def key(member: Member) -> str:
    """A member's name among all dictionaries."""
    return f"{member.dictionary}-{member.name}"


def read(out: Path) -> list[Trial]:
    """Every trial of a folder, whichever process made it."""
    return [trial for file in sorted(out.glob("*.jsonl")) for trial in Journal(file, Trial).records()]


def main() -> None:
    """Measure what is missing, then sum up."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", type=Path, default=Path("runs/families"))
    parser.add_argument("--out", type=Path, default=Path("runs/calibration"))
    parser.add_argument("--share", type=float, default=1.0, help="of the targets")
    parser.add_argument("--part", default="0/1", help="every N-th target from the K-th on, as K/N: one process of several")
    parser.add_argument("--only", nargs="+", choices=COUNTS, default=list(COUNTS), metavar="GROUP")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # the models are small
    pool = Pool(arguments.families, open_base(embedded_zoo() / BASE))
    first, step = map(int, arguments.part.split("/"))
    journal = Journal(arguments.out / f"{first}-of-{step}.jsonl", Trial)
    journal.mend()
    done = {trial.name for trial in read(arguments.out)}
    for case in list(_cases(pool, arguments.only, arguments.share))[first::step]:
        if case.name not in done:
            with tempfile.TemporaryDirectory() as scratch:
                journal.add(Work(pool, case).trial(Path(scratch)))
    figures = summary([trial.model_dump() for trial in read(arguments.out)])
    show(figures)
    write_json(arguments.out.with_suffix(".json"), {**figures, "environment": environment().model_dump(mode="json")})


def _cases(pool: Pool, groups: Sequence[Group], share: float) -> Iterator[Case]:
    for group in groups:
        for place in range(max(1, round(COUNTS[group] * share))):
            yield pool.case(group, place)


if __name__ == "__main__":
    main()
