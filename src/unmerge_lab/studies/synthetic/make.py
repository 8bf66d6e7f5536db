"""``unmerge synth``: a base, adapters and merges of them on disk, laid out as a zoo, so that ``unmerge study`` takes them as they are.

    DIR/zoo-base            the base, in shards
    DIR/known, unknown      adapters in PEFT's format; the first half is the dictionary
    DIR/targets/NAME        merges, each with ``target.json``: what is in it, with which weights
    DIR/study.yml           the study that draws these targets: ``unmerge study DIR/study.yml --out RUN`` decomposes and scores them
    DIR/synth.json          the design, the seed, versions

A merge is mergekit's own arithmetic, one tensor at a time: each adapter is merged into the base in bfloat16 as PEFT does, and mergekit's
method run on the tensors. No more than one tensor of each model is in memory.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

import torch
import yaml
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from unmerge.checkpoints import Checkpoint
from unmerge.checkpoints.write import SHARD, write_shards
from unmerge.checkpoints.write_adapter import write_adapter
from unmerge.core.errors import BadInput
from unmerge.core.records import Environment, environment, write_json, write_text
from unmerge.core.staging import Stage, staged
from unmerge.recipes.forward import depth_of, forward
from unmerge.recipes.recipe import BASE as THE_BASE
from unmerge.recipes.recipe import Input, Recipe
from unmerge.vectors import LowRank, Shape
from unmerge_lab.studies.design import AdapterSettings, Group, Merge, MergeSettings, StudyDesign, Zoo
from unmerge_lab.studies.synthetic.architectures import MODULES, Architecture
from unmerge_lab.studies.synthetic.draw import ALONE, Kin, Statistics, change, weights
from unmerge_lab.studies.targets import TARGET, TARGETS, Target, targets
from unmerge_lab.zoo.embedded import BASE, BASE_NAME, KNOWN, UNKNOWN

SYNTH, STUDY = "synth.json", "study.yml"
#: merges that keep some of the entries only
_SPARSE = ("ties", "dare_linear", "dare_ties")

Watch = Callable[[Iterable[str]], Iterable[str]]


Share = Annotated[float, Field(gt=0, lt=1)]
#: a family's kinds, one adapter each: a training and its continuation, two of one seed, two of one author, a stranger
FAMILY = ("run", "run", "start", "start", "author", "author", "alone")


class SynthDesign(BaseModel):
    """What is to be made.

    Attributes:
        architecture: a name of the table, or the path of a ``config.json``.
        layers: how many of its layers; all where none is given.
        vocabulary: of the embeddings, where it is not to be the model's own.
        modules: which adapters change: ``attention``, or ``linear`` for the MLP's as well.
        known, unknown: adapters in the dictionary, and out of it.
        rank, norm, cosine, leading: of the adapters, see ``draw.Statistics``.
        families: whether adapters have relatives, in either half (see ``families``); else all are strangers.
        groups, merges: of the targets: one for each of both.
        base: whether a base is written; adapters to be compared with adapters need none.
        adapters: whether an adapter is made for every group as well, of factors side by side (PEFT's ``cat``).
        components: of each target.
        density: share of the entries kept by merges that keep some only.
        seed: of everything that is drawn.
    """

    model_config = ConfigDict(extra="forbid")

    architecture: str
    layers: int | None = None
    vocabulary: int | None = Field(None, ge=8)
    modules: Literal["attention", "linear"] = "linear"
    known: int = Field(25, ge=1)
    unknown: int = Field(5, ge=0)
    rank: int = Field(32, ge=1)
    norm: float = Field(0.003, gt=0)
    cosine: float = Field(0.15, ge=0, lt=0.6)
    leading: tuple[Share, Share] = (0.7, 0.9)
    families: bool = False
    groups: list[Group] = ["known", "mixed", "unknown"]
    merges: list[Merge] = ["task_arithmetic", "ties", "dare_linear"]
    base: bool = True
    adapters: bool = False
    components: int = Field(3, ge=2)
    density: float = Field(0.5, gt=0, le=1)
    seed: int = Field(0, ge=0, lt=1 << 31)

    def study(self) -> StudyDesign:
        """The study whose targets these are."""
        return StudyDesign(
            zoo=".",
            groups=self.groups,
            components=[self.components],
            weights=["unequal"],
            merges={merge: MergeSettings(density=self.density if merge in _SPARSE else None) for merge in self.merges},
            dtypes=["bfloat16"],
            adapters={"cat": AdapterSettings()} if self.adapters else {},
            seeds=[self.seed],
            methods=["certificate"],
            spaces=["exact"],
        )


class SynthRecord(BaseModel):
    """What was made.

    Attributes:
        design: as it was asked for.
        layers, layers_of: that were written, and that the architecture has.
        weights: of the base.
        targets: names, in the order of making.
    """

    design: SynthDesign
    layers: int
    layers_of: int
    weights: int
    targets: list[str]
    environment: Environment


def synthesise(design: SynthDesign, out: Path, watch: Watch = iter, shard: int = SHARD) -> SynthRecord:
    """Make everything; an interrupted run keeps what it has made.

    Args:
        design: what to make.
        out: the folder to make.
        watch: wraps the loop over models, adapters and targets, for a progress bar.
        shard: bytes that a file of a checkpoint holds at most.

    Returns:
        The record that lies in ``out/synth.json``.

    Raises:
        BadInput: an unknown architecture, more layers than it has, or too few adapters for the targets.
    """
    architecture = Architecture.named(design.architecture).cut(design.layers, design.vocabulary)
    names = [f"{half}-{place:02d}" for half, count in ((KNOWN, design.known), (UNKNOWN, design.unknown)) for place in range(count)]
    known, unknown = tuple(names[: design.known]), tuple(names[design.known :])
    _refuse_too_few(design)
    if design.merges and not design.base:
        raise BadInput(expected="a base to merge on", found="--no-base", where="synth", hint="leave it out, or give --merges none")
    adapters = DrawnAdapters(
        architecture.linear(MODULES[design.modules]),
        Statistics(design.rank, design.norm, design.cosine, design.leading),
        families(names, design.seed) if design.families else {},
        design.seed,
    )
    with staged(out, [design.model_dump(), dict(architecture.config), shard]) as stage:
        drawn = targets(design.study(), Zoo(stage.folder, stage.folder / BASE, known, unknown))
        for piece in watch([*([BASE] if design.base else []), *names, *(target.name for target in drawn)]):
            if piece == BASE:
                _once(stage, BASE, lambda folder: _write_base(folder, architecture, design.seed, shard))
            elif piece in names:
                own = piece
                place = f"{KNOWN if own in known else UNKNOWN}/{own}"
                _once(stage, place, lambda folder, own=own: write_adapter(folder, adapters.changes(own), BASE_NAME))  # type: ignore[misc]
            else:
                target = next(target for target in drawn if target.name == piece)
                maker = _Maker(stage.folder / BASE, adapters, shard)
                _once(stage, f"{TARGETS}/{target.name}", lambda folder, maker=maker, target=target: maker.write(folder, target))  # type: ignore[misc]
        written = design.study().model_dump(mode="json", exclude_none=True)
        write_text(stage.folder / STUDY, yaml.safe_dump(written, sort_keys=False))
        sizes = (torch.Size(shape).numel() for shape in architecture.tensors().values())
        record = SynthRecord(
            design=design,
            layers=architecture.layers,
            layers_of=architecture.whole,
            weights=sum(sizes),
            targets=[target.name for target in drawn],
            environment=environment(),
        )
        write_json(stage.folder / SYNTH, record)
    return record


def _once(stage: Stage, name: str, make: Callable[[Path], None]) -> None:
    if not stage.has(name):
        with stage.piece(name) as piece:
            piece.mkdir()
            make(piece)


def _refuse_too_few(design: SynthDesign) -> None:
    if not (design.merges or design.adapters):
        return
    half = (design.components + 1) // 2
    needed = {
        "--known": max({"known": design.components, "mixed": half, "unknown": 1}[group] for group in design.groups),
        "--unknown": max({"known": 0, "mixed": half, "unknown": design.components}[group] for group in design.groups),
    }
    for option, least in needed.items():
        found = getattr(design, option.removeprefix("--"))
        if found < least:
            raise BadInput(
                expected=f"at least {least} adapters, for targets of {design.components} components",
                found=str(found),
                where=option,
                hint=f"give {option} {least}, or fewer --components",
            )


def _write_base(folder: Path, architecture: Architecture, seed: int, shard: int) -> None:
    shapes = architecture.tensors()
    write_shards(folder, _layout(shapes), (weights(name, shape, seed) for name, shape in shapes.items()), shard)
    write_json(folder / "config.json", dict(architecture.config))


def _layout(shapes: dict[str, Shape]) -> dict[str, tuple[str, Shape]]:
    return {name: ("BF16", shape) for name, shape in shapes.items()}


@dataclass(frozen=True)
class DrawnAdapters:
    """The adapters of a synthetic model, drawn when they are asked for.

    Attributes:
        shapes: of the tensors that they change.
        statistics: what they are like.
        kin: the family of each that has one.
        seed: of everything that is drawn.
    """

    shapes: dict[str, Shape]
    statistics: Statistics
    kin: dict[str, Kin]
    seed: int

    def change(self, name: str, tensor: str) -> LowRank:
        """What one adapter changes in one tensor."""
        return change(name, tensor, self.shapes[tensor], self.statistics, self.seed, self.kin.get(name, ALONE))

    def changes(self, name: str) -> dict[str, LowRank]:
        """What one adapter changes."""
        return {tensor: self.change(name, tensor) for tensor in self.shapes}


def families(names: Sequence[str], seed: int) -> dict[str, Kin]:
    """Families of adapters in an order that the seed draws, so that relatives lie in both halves of a zoo."""
    order = random.Random(f"{seed}/families").sample(names, len(names))
    kin = [(name, FAMILY[place % len(FAMILY)], place // len(FAMILY)) for place, name in enumerate(order)]
    return {name: Kin(f"{kind}-{number}", kind) for name, kind, number in kin}


class _Maker:
    """Makes targets of one base."""

    def __init__(self, base: Path, adapters: DrawnAdapters, shard: int) -> None:
        self.folder, self.adapters, self.shard = base, adapters, shard

    @cached_property
    def base(self) -> Checkpoint:
        return Checkpoint.open(self.folder)

    def write(self, folder: Path, target: Target) -> None:
        """Write a merged checkpoint, or an adapter, with the record of what is in it."""
        if target.is_adapter:
            write_adapter(folder, {tensor: self._side_by_side(target, tensor) for tensor in self.adapters.shapes}, BASE_NAME)
        else:
            write_shards(folder, _layout(dict(self.base.shapes)), self._merged(target), self.shard)
            write_json(folder / "config.json", dict(self.base.config))
        write_json(folder / TARGET, asdict(target))

    def _side_by_side(self, target: Target, tensor: str) -> LowRank:
        parts = [(self.adapters.change(name, tensor), weight) for name, weight in target.weights.items()]
        return LowRank(torch.cat([part.b.float() * weight for part, weight in parts], 1), torch.cat([part.a.float() for part, _ in parts]))

    def _merged(self, target: Target) -> Iterator[Tensor]:
        recipe = Recipe(
            method=target.merge,
            inputs=tuple(Input(name, {"weight": weight}) for name, weight in target.weights.items()),
            base=None if target.merge == "linear" else THE_BASE,
            parameters={} if target.density is None else {"density": target.density},
        )
        for tensor in self.base.shapes:
            base = self.base.read(tensor)
            if tensor not in self.adapters.shapes:
                yield base
                continue
            models = {name: (base + self._change_in_float32(name, tensor)).to(base.dtype) for name in target.weights}
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(zlib.crc32(f"{target.seed}/{target.name}/{tensor}".encode()))
                yield forward(recipe, models | {THE_BASE: base}, tensor, depth_of(tensor, int(self.base.config["num_hidden_layers"])))

    def _change_in_float32(self, name: str, tensor: str) -> Tensor:
        """As PEFT merges: it takes 16-bit factors to float32, and rounds once, to the base's dtype."""
        delta = self.adapters.change(name, tensor)
        return delta.b.float() @ delta.a.float()
