"""The main job on the embedded zoo: train an adapter, merge five of which two are unknown, decompose, subtract, measure, and write the audit."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import yaml
from pydantic import BaseModel

from unmerge.auditing import Request, Watches, run_audit
from unmerge.auditing.run import DECOMPOSITION
from unmerge.checkpoints import Checkpoint
from unmerge.core.errors import BadOutput
from unmerge.core.records import Environment, environment, fingerprint, read_json, sha256, write_json, write_text
from unmerge.core.staging import staged
from unmerge.decomposition import Decomposition, Dictionary, decompose, open_base, open_dictionary, open_vector
from unmerge.evaluation.exact_match import exact_match
from unmerge.evaluation.models import load_model
from unmerge.recipes.merge import merge
from unmerge.report.audit import write_audit
from unmerge.training.adapters import AdapterRecord, train_adapter
from unmerge.training.finetune import Watch
from unmerge.verification.ablate import ablate
from unmerge.verification.matrix import AblationMatrix, Row
from unmerge_lab import embedded_zoo
from unmerge_lab.zoo.build import ZOO_RECORD, ZooRecord
from unmerge_lab.zoo.embedded import BASE, KNOWN, UNKNOWN, held_out, training_recipe, write_task, zoo_tasks
from unmerge_lab.zoo.tasks import GENERAL, TASKS

#: the known components and their weights; the one that is trained live; those that the dictionary lacks
WEIGHTS = {"pirate": 0.9, "python_list": 0.8, "json_object": 0.7}
TRAINED = "pirate"
STRANGERS = {"past_tense": 0.6, "csv_row": 0.6}
SEED = 0
#: where the audit's page is, and how many items of each task it measures; None for all
AUDIT = "audit"
AUDIT_ITEMS: int | None = None

Over = Callable[[str], Callable[[Iterable[str]], Iterable[str]]]


class DemoResult(BaseModel):
    """Everything that the demo found; also the record ``demo.json``."""

    trained: AdapterRecord
    weights: dict[str, float]
    unknown: dict[str, float]
    decomposition: Decomposition
    matrix: AblationMatrix
    seconds: dict[str, float]
    environment: Environment


def run_demo(out: Path, steps: Callable[[str], Watch], over: Over) -> DemoResult:
    """Run the demo, or take up where an earlier run stopped.

    Args:
        out: folder for everything; finished steps found there are used again.
        steps: given a title, returns what is told of the steps of training.
        over: given a title, returns a wrapper for loops.

    Raises:
        BadOutput: ``out`` holds something else, or cannot be written.
    """
    job = fingerprint([sha256(embedded_zoo() / ZOO_RECORD), WEIGHTS, STRANGERS, TRAINED, SEED])
    _claim(out, job)
    clock = _Clock(out / "seconds.json")
    with clock.step("train"):
        _dictionary(out / "dictionary", steps("training " + TRAINED))
    with clock.step("merge"):
        _target(out)
    base = open_base(embedded_zoo() / BASE)
    dictionary = open_dictionary([out / "dictionary"], base)
    with clock.step("decompose"):
        decomposition = _decomposition(out, dictionary, over("decomposing"))
    with clock.step("ablate"):
        removed = [(component.name, component.coefficient) for component in decomposition.components]
        for name, coefficient in removed:
            if not (out / "ablated" / name).exists():
                target = open_vector(out / "target", base)
                ablate(target, [(dictionary.named(name), coefficient)], out / "ablated" / name, watch=over(f"subtracting {name}"))
    with clock.step("evaluate"):
        matrix = _matrix(out, removed, over("measuring"))
    with clock.step("audit"):
        _audit(out, dictionary, base, decomposition, Watches(over, steps))
    result = DemoResult(
        trained=AdapterRecord.read(out / "dictionary" / TRAINED),
        weights=WEIGHTS,
        unknown=STRANGERS,
        decomposition=decomposition,
        matrix=matrix,
        seconds=clock.seconds,
        environment=environment(),
    )
    write_json(out / "demo.json", result)
    return result


def _claim(out: Path, job: str) -> None:
    """Take an empty folder, or one that the same demo made."""
    mark = out / "job.json"
    if not mark.exists():
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise BadOutput(where=out, found="it exists already", hint="remove it or choose another --out")
        write_json(mark, {"job": job})
    elif read_json(mark, "the demo's mark") != {"job": job}:
        raise BadOutput(where=out, found="another version's demo", hint="remove it or choose another --out")


def _dictionary(out: Path, watch: Watch) -> None:
    """The zoo's known adapters, one of them trained anew."""
    if out.exists():
        return
    zoo = ZooRecord.model_validate(read_json(embedded_zoo() / ZOO_RECORD, "the zoo's record"))
    with staged(out, {"dictionary": TRAINED}) as stage:
        if not stage.has(TRAINED):
            (task,) = (task for task in TASKS if task.name == TRAINED)
            data = out.parent / "data"
            write_task(data, task, SEED)
            with stage.piece(TRAINED) as piece:
                train_adapter(training_recipe([task], SEED, embedded_zoo() / BASE).beside(data), TRAINED, piece, watch)
        for name in zoo.known:
            if not stage.has(name):
                with stage.piece(name) as piece:
                    shutil.copytree(embedded_zoo() / KNOWN / name, piece)


def _target(out: Path) -> None:
    if (out / "target").exists():
        return
    weights = {f"dictionary/{name}": weight for name, weight in WEIGHTS.items()}
    weights |= {str(embedded_zoo() / UNKNOWN / name): weight for name, weight in STRANGERS.items()}
    configuration = {
        "merge_method": "task_arithmetic",
        "base_model": str(embedded_zoo() / BASE),
        "dtype": "bfloat16",
        "models": [{"model": folder, "parameters": {"weight": weight}} for folder, weight in weights.items()],
    }
    write_text(out / "merge.yml", yaml.safe_dump(configuration, sort_keys=False))
    merge(out / "merge.yml", out / "target", SEED)


def _decomposition(out: Path, dictionary: Dictionary, watch: Callable[[Iterable[str]], Iterable[str]]) -> Decomposition:
    record = out / "decomposition.json"
    if not record.exists():
        base = open_base(embedded_zoo() / BASE)
        write_json(record, decompose(open_vector(out / "target", base), dictionary, base, watch=watch))
    return Decomposition.model_validate(read_json(record, "a decomposition"))


def _matrix(out: Path, removed: list[tuple[str, float]], watch: Callable[[Iterable[str]], Iterable[str]]) -> AblationMatrix:
    record = out / "matrix.json"
    if not record.exists():
        folders = {str(out / "target"): (None, None)} | {str(out / "ablated" / name): (name, coefficient) for name, coefficient in removed}
        rows = [Row(removed=folders[folder][0], coefficient=folders[folder][1], scores=_scores(Path(folder))) for folder in watch(folders)]
        tasks = {name: AdapterRecord.read(out / "dictionary" / name).task for name, _ in removed}
        items = {name: len(examples) for name, examples in held_out().items()}
        write_json(record, AblationMatrix(rows=rows, task_of=tasks, general=[task.name for task in GENERAL], items=items))
    return AblationMatrix.model_validate(read_json(record, "an ablation matrix"))


def _audit(out: Path, dictionary: Dictionary, base: Checkpoint, decomposition: Decomposition, watches: Watches) -> None:
    """The audit of the target, from the decomposition that is there."""
    if (out / AUDIT).exists():
        return
    with staged(out / AUDIT, {"audit": AUDIT_ITEMS}) as stage:
        if not stage.has(DECOMPOSITION):
            with stage.piece(DECOMPOSITION) as piece:
                write_json(piece, decomposition)
        request = Request(open_vector(out / "target", base), dictionary, base, zoo_tasks(), AUDIT_ITEMS)
        write_audit(run_audit(request, stage, watches), stage.folder)


def _scores(folder: Path) -> dict[str, float]:
    model, tokenizer = load_model(folder)
    return {
        name: sum(right) / len(right) for name, right in ((name, exact_match(model, tokenizer, examples)) for name, examples in held_out().items())
    }


class _Clock:
    """Seconds of each step, kept on disk; a step that finds its work done does not count again."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.seconds: dict[str, float] = read_json(file, "seconds by step") if file.exists() else {}

    def step(self, name: str) -> _Step:
        return _Step(self, name)


class _Step:
    def __init__(self, clock: _Clock, name: str) -> None:
        self.clock, self.name, self.started = clock, name, 0.0

    def __enter__(self) -> None:
        self.started = time.monotonic()

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None and self.name not in self.clock.seconds:
            self.clock.seconds[self.name] = round(time.monotonic() - self.started, 2)
            write_json(self.clock.file, self.clock.seconds)
