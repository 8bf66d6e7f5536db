"""The whole proposal from one file: train adapters, merge and decompose, verify. A study with ``train`` in its design.

    DIR/adapters/NAME          Phase 1: every adapter
    DIR/zoo/known, unknown     links to them, in two halves; zoo-base is the base; tasks are their held-out items
    DIR/study/...              Phases 2 to 4 (see ``study``)
    DIR/verify/TARGET.json     Phase 5: a target verified, with the score of every item beside it
    DIR/phases.json            what came out

A run that was stopped, at any point, is taken up by the same command.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from unmerge.checkpoints.hub import located
from unmerge.core.errors import BadInput, need
from unmerge.core.records import environment, fingerprint, write_json
from unmerge.decomposition import decompose, open_base, open_dictionary, open_vector
from unmerge.evaluation.checks import Check, LmEval
from unmerge.evaluation.generated import BATCH
from unmerge.training.adapters import AdapterRecord, train_adapters
from unmerge.training.plan import SPEED, plan
from unmerge.training.recipe import TrainingRecipe
from unmerge.verification.record import Verification
from unmerge.verification.run import Request, Watch, conditions, verify
from unmerge.verification.tasks import read_tasks
from unmerge_lab.report.phases_record import PhasesPlan, PhasesRecord, Verdict
from unmerge_lab.studies.design import StudyDesign, Zoo
from unmerge_lab.studies.make_target import base_in, make_target
from unmerge_lab.studies.study import claim, run_study
from unmerge_lab.studies.targets import Target, targets
from unmerge_lab.zoo.embedded import BASE, KNOWN, TASK_FILES, UNKNOWN

#: of an RTX 3090, 40% of its 936 GB/s; items and tokens where a recipe does not say; the tokens of a question's four choices
_BANDWIDTH, _ITEMS, _ANSWER, _CHOICES = 0.4 * 936e9, 100, 64, 400
ADAPTERS, ZOO, STUDY, VERIFY, RECORD = "adapters", "zoo", "study", "verify", "phases.json"


@dataclass(frozen=True)
class Watches:
    """How to show progress: bars by title, and loops of known length."""

    steps: Callable[[str], Watch]
    over: Callable[[str], Callable[[Iterable[str]], Iterable[str]]]


def run_phases(design: StudyDesign, out: Path, watches: Watches, jobs: int = 1, *, keep: bool = False) -> PhasesRecord:
    """Run all phases of a design that trains, or what an earlier run of it left.

    Args:
        design: with ``train``.
        out: its folder.
        watches: what is told of the progress.
        jobs: processes that merge and decompose.
        keep: leave the targets on disk.

    Raises:
        BadInput: something in the design or its recipe is not what it should be.
        BadOutput: ``out`` holds something else, or cannot be written.
    """
    recipe = read_recipe(design)
    known, unknown = halves(design, recipe)
    # what would fail after hours of training fails now
    design.check_enough(Zoo(out / ZOO, recipe.base, known, unknown))
    if design.verify and (recipe.general or any(isinstance(entry.metric, LmEval) for entry in recipe.adapters.values())):
        need("lm_eval", "eval")
    claim(out, fingerprint([recipe.model_dump(mode="json"), known, unknown]))
    place = out.resolve()
    if not (place / ADAPTERS).exists():
        train_adapters(recipe, place / ADAPTERS, watches.steps, place / ZOO / TASK_FILES)
    _link(place, located(recipe.base), {KNOWN: known, UNKNOWN: unknown})
    trained = design.model_copy(update={"zoo": str(place / ZOO)})
    record = run_study(trained, place / STUDY, watches.steps("decomposing"), jobs, keep=keep)
    zoo = trained.open_zoo()
    if design.verify:
        asked = trained.model_dump(mode="json", exclude={"train", "known", "zoo", "methods", "spaces", "sentence_model"})
        claim(place / VERIFY, fingerprint([asked, {name: found.sha256 for name, found in record.dictionary.items()}]))
    results = [(target, _verify(trained, zoo, target, place, watches, keep=keep)) for target in verified(trained, zoo)]
    whole = PhasesRecord(
        adapters={name: AdapterRecord.read(place / ADAPTERS / name) for name in recipe.adapters},
        study=record,
        verdicts=[verdict for target, result in results for verdict in _verdicts(target, result)],
        environment=environment(),
    )
    write_json(place / RECORD, whole)
    return whole


def plan_phases(design: StudyDesign) -> PhasesPlan:
    """What a study will take; nothing is downloaded, trained or merged."""
    if design.train is None:
        zoo, training, tasks, hours = design.open_zoo(), None, 0, 0.0
        bytes_each = sum(file.stat().st_size for file in zoo.base.glob("*.safetensors"))
    else:
        recipe = read_recipe(design)
        known, unknown = halves(design, recipe)
        zoo, training, tasks = Zoo(Path(), recipe.base, known, unknown), plan(recipe), len(recipe.adapters) + len(recipe.general)
        design.check_enough(zoo)
        hours = _hours(recipe, training.parameters, design.verify.limit if design.verify else None)
        bytes_each = training.parameters * (4 if "float32" in design.dtypes else 2)
    drawn, chosen = targets(design, zoo), verified(design, zoo)
    states = sum(conditions(len(target.known)) for target in chosen)
    return PhasesPlan(
        training=training,
        known=len(zoo.known),
        unknown=len(zoo.unknown),
        targets={group: sum(target.group == group for target in drawn) for group in design.groups},
        cells=len(drawn) * len(design.cells),
        target_gib=bytes_each / (1 << 30),
        verified=len(chosen),
        removals=sum(len(target.known) for target in chosen),
        conditions=states,
        hours=states * hours,
        items=design.verify.limit if design.verify else None,
        tasks=tasks,
    )


def _hours(recipe: TrainingRecipe, parameters: int, limit: int | None) -> float:
    """To score one state of a model on every task: generating reads all weights for each token of a batch, choosing reads the choices once."""
    seconds = 0.0
    for entry in recipe.adapters.values():
        items = min(limit or _ITEMS, entry.held_out if isinstance(entry.held_out, int) else _ITEMS)
        tokens = entry.metric.tokens / 2 if isinstance(entry.metric, Check) else _ANSWER
        seconds += items * tokens * 2 * parameters / (_BANDWIDTH * BATCH)
    return (seconds + len(recipe.general) * (limit or _ITEMS) * _CHOICES * 2 * parameters / SPEED) / 3600


def read_recipe(design: StudyDesign) -> TrainingRecipe:
    """The training recipe that a design names."""
    assert design.train is not None
    recipe = TrainingRecipe.read(design.train)
    if recipe.lora is None:
        raise BadInput(expected="a recipe that trains LoRA adapters", found="lora: null", where=design.train, hint="give it a lora")
    return recipe


def halves(design: StudyDesign, recipe: TrainingRecipe) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The dictionary, and what is kept out of it: as the design says, or by turns within each category."""
    names = tuple(recipe.adapters)
    if strangers := [name for name in design.known if name not in names]:
        raise BadInput(expected="adapters of the recipe as 'known'", found=", ".join(strangers), where=design.train or "known", hint="mend the names")
    # without a choice every other one, sorted by category and in the recipe's order within each
    known = set(design.known or sorted(names, key=lambda name: recipe.adapters[name].category)[0::2])
    return tuple(name for name in names if name in known), tuple(name for name in names if name not in known)


def verified(design: StudyDesign, zoo: Zoo) -> list[Target]:
    """The targets of Phase 5: those that the design asks for, and that hold something known."""
    if design.verify is None:
        return []
    asked = design.verify
    chosen = [
        target
        for target in targets(design, zoo)
        if target.known and target.group in asked.groups and (asked.merges is None or target.merge in asked.merges)
    ]
    count = min(asked.targets or len(chosen), len(chosen))
    return [chosen[place * len(chosen) // count] for place in range(count)]


def _link(place: Path, base: Path, names: dict[str, Sequence[str]]) -> None:
    """Put the zoo together; it holds links."""
    links = {place / ZOO / BASE: base.resolve()}
    links |= {place / ZOO / half / name: place / ADAPTERS / name for half, members in names.items() for name in members}
    for link, target in links.items():
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.is_symlink():
            link.symlink_to(target, target_is_directory=True)


def _verify(design: StudyDesign, zoo: Zoo, target: Target, place: Path, watches: Watches, *, keep: bool) -> Verification:
    """Phase 5 of one target, which is made again for it."""
    assert design.verify is not None
    record = place / VERIFY / f"{target.name}.json"
    if record.exists():
        return Verification.model_validate_json(record.read_text(encoding="utf-8"))
    base_folder = base_in(zoo.base, target.dtype, place / STUDY)
    folder = place / VERIFY / "targets" / target.name
    if not folder.exists():
        make_target(target, zoo, base_folder, folder)
    base = open_base(base_folder)
    dictionary = open_dictionary([zoo.folder / KNOWN], base)
    vector = open_vector(folder, base)
    tasks = read_tasks(zoo.folder / TASK_FILES, dictionary)
    found = decompose(vector, dictionary, base, watch=watches.over(f"decomposing {target.name}"))
    request = Request(vector, base, dictionary, found, tasks, {}, target.seed)
    suite = tasks.suite(limit=design.verify.limit)
    result = verify(request, suite, record.with_suffix(".items.jsonl"), watch=watches.steps(f"verifying {target.name}"))
    write_json(record, result)
    if not keep:
        shutil.rmtree(folder.parent)
    return result


def _verdicts(target: Target, result: Verification) -> list[Verdict]:
    return [
        Verdict(
            target=target.name,
            group=target.group,
            merge=target.merge,
            removed=component.removed,
            before=component.before,
            after=component.after,
            verdict=component.verdict,
        )
        for component in result.components
    ]
