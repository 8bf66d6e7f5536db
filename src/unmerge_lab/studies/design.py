"""What a study is made of: the STUDY.yml that ``unmerge study`` reads."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from unmerge.core.errors import BadInput
from unmerge.decomposition.run import METHODS
from unmerge.decomposition.spaces import SPACES
from unmerge_lab import embedded_zoo
from unmerge_lab.zoo.embedded import BASE, KNOWN, UNKNOWN

Group = Literal["known", "mixed", "unknown"]
Merge = Literal["task_arithmetic", "linear", "ties", "dare_linear", "dare_ties"]
Kind = Literal["cat", "svd", "extract"]
Dtype = Literal["float32", "bfloat16"]
Weighting = Literal["equal", "unequal"]

ALL, EMBEDDED = "all", "embedded"

Item = TypeVar("Item")


def _different(values: list[Item]) -> list[Item]:
    if len(set(values)) < len(values):
        raise ValueError("the same one twice")
    return values


def _one_of(choices: Iterable[str]) -> AfterValidator:
    known = tuple(choices)

    def check(name: str) -> str:
        if name not in known:
            raise ValueError(f"{name!r}; it is one of {', '.join(known)}")
        return name

    return AfterValidator(check)


Different = AfterValidator(_different)
#: names, or ``all`` alone
Methods = Annotated[list[Annotated[str, _one_of([ALL, *METHODS])]], BeforeValidator(lambda value: [value] if value == ALL else value), Different]
Spaces = Annotated[list[Annotated[str, _one_of([ALL, *SPACES])]], BeforeValidator(lambda value: [value] if value == ALL else value), Different]


class MergeSettings(BaseModel):
    """What mergekit is given beside the weights: the share of each task vector's entries that is kept."""

    model_config = ConfigDict(extra="forbid")

    density: float | None = Field(None, gt=0, le=1)


class AdapterSettings(BaseModel):
    """What makes an adapter of several: the rank that it is cut to (``cat`` is never cut)."""

    model_config = ConfigDict(extra="forbid")

    rank: int = Field(32, ge=1)


class VerifySettings(BaseModel):
    """Which targets are verified after they were decomposed (Phase 5).

    Attributes:
        groups: of these groups; a target of the group unknown has nothing known to remove.
        merges: of these merges and kinds of adapters; None for all.
        targets: so many at most, evenly chosen from the others.
        limit: items of each task at most.
    """

    model_config = ConfigDict(extra="forbid")

    groups: Annotated[list[Group], Different] = Field(["known", "mixed"], min_length=1)
    merges: list[Merge | Kind] | None = None
    targets: int | None = Field(None, ge=1)
    limit: int | None = Field(None, ge=1)


class StudyDesign(BaseModel):
    """What ``unmerge study`` reads.

    Attributes:
        train: a training recipe, relative to the file; its adapters are trained first (Phase 1) and are the zoo.
        known: with ``train``, the adapters that make the dictionary; where none is named, every other one of the recipe, category by category.
        verify: with ``train``, what is verified at the end (Phase 5).
        zoo: ``embedded``, or a folder that ``unmerge zoo`` wrote (with ``zoo-base``, ``known`` and ``unknown``), relative to the file.
        groups: components all in the dictionary; half of them; none.
        components: how many components a target has; targets take turns.
        weights: all alike, or different ones; targets take turns.
        merges: merge methods, with their settings. One target for each group, merge, dtype, seed and repeat.
        dtypes: of the merged checkpoints, each decomposed against the base in that dtype.
        adapters: kinds of adapters as targets. One for each group, kind, seed and repeat.
        seeds: of the draw of components and weights, and of mergekit's random masks.
        repeats: targets drawn of each sort.
        methods: ``all``, or names.
        spaces: ``all``, or names.
        sentence_model: a sentence-transformers model, a folder or a name, for semantic alignment beside TF-IDF.
    """

    model_config = ConfigDict(extra="forbid")

    train: Path | None = None
    known: Annotated[list[str], Different] = []
    verify: VerifySettings | None = None
    zoo: str = EMBEDDED
    groups: Annotated[list[Group], Different] = Field(["known", "mixed", "unknown"], min_length=1)
    components: Annotated[list[Annotated[int, Field(ge=2)]], Different] = Field([2, 3, 4, 5], min_length=1)
    weights: Annotated[list[Weighting], Different] = Field(["equal", "unequal"], min_length=1)
    merges: dict[Merge, MergeSettings] = {}
    dtypes: Annotated[list[Dtype], Different] = Field(["float32", "bfloat16"], min_length=1)
    adapters: dict[Kind, AdapterSettings] = {}
    seeds: Annotated[list[Annotated[int, Field(ge=0)]], Different] = Field([0, 1, 2], min_length=1)
    repeats: int = Field(1, ge=1)
    methods: Methods = Field([ALL], min_length=1)
    spaces: Spaces = Field([ALL], min_length=1)
    sentence_model: str | None = None

    @staticmethod
    def read(file: Path) -> StudyDesign:
        """Read a STUDY.yml and make its paths absolute.

        Raises:
            BadInput: no such file, broken YAML, an unknown or ill-typed setting, or nothing to merge.
        """
        try:
            raw = yaml.safe_load(file.read_text(encoding="utf-8"))
            design = StudyDesign.model_validate(raw)
        except OSError as error:
            raise BadInput(expected="a study's design", found=error.strerror or str(error), where=file, hint="check the path") from error
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise BadInput(expected="a study's design in YAML", found=f"broken YAML ({error})", where=file, hint="mend the file") from error
        except ValidationError as error:
            first = error.errors()[0]
            setting = ".".join(map(str, first["loc"])) or "the design"
            raise BadInput(expected=f"a valid {setting}", found=first["msg"], where=file, hint="see studies/zoo.yml for an example") from error
        if not design.merges and not design.adapters:
            raise BadInput(expected="targets to make", found="neither merges nor adapters", where=file, hint="name a merge, such as 'ties: {}'")
        if design.train is None and (design.known or design.verify):
            raise BadInput(expected="a recipe to train", found="'known' or 'verify' without it", where=file, hint="name one (train: FILE)")
        if design.train is not None:
            if design.zoo != EMBEDDED:
                raise BadInput(expected="a recipe to train or a zoo", found="both", where=file, hint="leave one of the two out")
            design = design.model_copy(update={"train": (file.parent / design.train).resolve()})
        if design.zoo != EMBEDDED:
            design = design.model_copy(update={"zoo": str((file.parent / design.zoo).resolve())})
        return design

    @property
    def cells(self) -> list[tuple[str, str]]:
        """(space, method) of everything that is asked of a target, space by space."""
        spaces = list(SPACES) if ALL in self.spaces else self.spaces
        methods = list(METHODS) if ALL in self.methods else self.methods
        return [(space, method) for space in spaces for method in methods]

    def open_zoo(self) -> Zoo:
        """The zoo that it is about.

        Raises:
            BadInput: the folder is no zoo, or has too few adapters for the design.
        """
        folder = embedded_zoo() if self.zoo == EMBEDDED else Path(self.zoo)
        known, unknown = (_adapters(folder / half) for half in (KNOWN, UNKNOWN))
        zoo = Zoo(folder, folder / BASE, known, unknown)
        self.check_enough(zoo)
        return zoo

    def check_enough(self, zoo: Zoo) -> None:
        """Raise BadInput where a zoo has too few adapters for the design."""
        most = max(self.components)
        needed = {
            KNOWN: max((most if group == "known" else (most + 1) // 2 if group == "mixed" else 1) for group in self.groups),
            UNKNOWN: max((most if group == "unknown" else (most + 1) // 2 if group == "mixed" else 0) for group in self.groups),
        }
        for half, names in ((KNOWN, zoo.known), (UNKNOWN, zoo.unknown)):
            if len(names) < needed[half]:
                raise BadInput(
                    expected=f"at least {needed[half]} adapters, for targets of {most} components",
                    found=f"{len(names)}",
                    where=zoo.folder / half,
                    hint="give a zoo that 'unmerge zoo' wrote, or fewer components",
                )


@dataclass(frozen=True)
class Zoo:
    """A base, adapters that make the dictionary, and adapters kept out of it.

    Attributes:
        folder: where the adapters are, in two halves.
        base: the base's folder.
        known: names of the first kind.
        unknown: of the second.
    """

    folder: Path
    base: Path
    known: tuple[str, ...]
    unknown: tuple[str, ...]

    def adapter(self, name: str) -> Path:
        """The folder of an adapter."""
        return self.folder / (KNOWN if name in self.known else UNKNOWN) / name


def _adapters(folder: Path) -> tuple[str, ...]:
    return tuple(sorted(entry.name for entry in folder.iterdir() if (entry / "adapter_config.json").exists())) if folder.is_dir() else ()
