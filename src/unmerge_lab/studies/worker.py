"""What one process of a study does: make a target, ask every method in every space, keep each answer."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

from threadpoolctl import threadpool_limits

from unmerge.checkpoints import Checkpoint
from unmerge.core.errors import UnmergeError, need
from unmerge.core.journal import Journal
from unmerge.core.records import read_json
from unmerge.decomposition import Dictionary, decompose, open_base, open_dictionary, open_vector
from unmerge.decomposition.blocks import problem_of
from unmerge.decomposition.dictionary import Vector
from unmerge.decomposition.spaces import SPACES, Products
from unmerge.solvers import SOLVERS
from unmerge.vectors import Gram, gram, torch_threads
from unmerge_lab.report.study_record import Cell
from unmerge_lab.studies.answers import Answer, cell, of_decomposition, of_solution
from unmerge_lab.studies.design import Zoo
from unmerge_lab.studies.make_target import make_target
from unmerge_lab.studies.memory import Peak
from unmerge_lab.studies.targets import TARGET, TARGETS, Target
from unmerge_lab.zoo.embedded import KNOWN

Result = TypeVar("Result")


@dataclass(frozen=True)
class Job:
    """What is to be done about one target.

    Attributes:
        target: what to make.
        zoo: of what.
        base: the base in the target's dtype.
        out: the study's folder.
        cells: (space, method) of all that is asked.
        keep: whether the target stays on disk.
    """

    target: Target
    zoo: Zoo
    base: Path
    out: Path
    cells: tuple[tuple[str, str], ...]
    keep: bool

    @property
    def journal(self) -> Journal[Cell]:
        return Journal(self.out / "cells" / f"{self.target.name}.jsonl", Cell)

    @property
    def folder(self) -> Path:
        """Where the target is, or is to be made: beside the zoo where it was made with it, as ``unmerge synth`` does."""
        return self._beside_zoo if self.is_given else self.out / TARGETS / self.target.name

    @property
    def is_given(self) -> bool:
        """Whether the target lies beside the zoo."""
        record = self._beside_zoo / TARGET
        return record.exists() and read_json(record, "what is in a target") == json.loads(json.dumps(asdict(self.target)))

    @property
    def _beside_zoo(self) -> Path:
        return self.zoo.folder / TARGETS / self.target.name

    def missing(self) -> list[tuple[str, str]]:
        """What is not finished."""
        finished = {(found.space, found.method) for found in self.journal.records()}
        return [pair for pair in self.cells if pair not in finished]


def start_worker() -> None:
    """A process on its own: deaf to Ctrl-C (the parent ends it), and gone when the parent is."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # tqdm would make a semaphore for all processes, and Python would complain of it when this one is ended by force
    need("tqdm", "study").tqdm.set_lock(threading.RLock())
    parent = multiprocessing.parent_process()
    if parent is not None:

        def follow() -> None:
            parent.join()
            os._exit(1)

        threading.Thread(target=follow, daemon=True).start()


def run_job(job: Job) -> int:
    """Do what is missing about a target, with one thread. Returns how many cells that was."""
    with torch_threads(1), threadpool_limits(1):  # libraries that each take all cores get into each other's way
        return _run_job(job)


def run_in_worker(job: Job) -> int | str:
    """``run_job`` in another process: an error comes back as its text, since it cannot be pickled."""
    try:
        return run_job(job)
    except UnmergeError as error:
        return str(error)


def _run_job(job: Job) -> int:
    job.journal.mend()
    missing = job.missing()
    if not missing:
        return 0
    if not job.folder.exists():
        make_target(job.target, job.zoo, job.base, job.folder)
    base, dictionary = _opened(job.zoo, job.base)
    asked = _Asked(open_vector(job.folder, base), dictionary, base)
    for space, method in missing:
        job.journal.add(asked.cell(job.target, space, method))
    if not job.keep and not job.is_given:
        shutil.rmtree(job.folder)
        job.folder.with_name(f"{job.folder.name}.yml").unlink(missing_ok=True)
    return len(missing)


@lru_cache(maxsize=2)
def _opened(zoo: Zoo, base: Path) -> tuple[Checkpoint, Dictionary]:
    opened = open_base(base)
    return opened, open_dictionary([zoo.folder / KNOWN], opened)


class _Asked:
    """A target, and the inner products with it that were taken so far: once for all methods."""

    def __init__(self, vector: Vector, dictionary: Dictionary, base: Checkpoint) -> None:
        self.vector, self.dictionary, self.base = vector, dictionary, base
        self.atoms = dictionary.names
        self._taken: dict[Products, tuple[Gram, float, float]] = {}
        self.problem = problem_of(self._products(gram)[0])

    def cell(self, target: Target, space: str, method: str) -> Cell:
        if method not in SOLVERS:
            (answer, seconds, memory) = _measured(lambda: self._decomposed(space, method))
            return cell(target, space, method, answer, self.atoms, seconds, None, memory)
        products, before, most = self._products(SPACES[space].products)
        solution, seconds, memory = _measured(lambda: SPACES[space].solve(SOLVERS[method], products))
        answer = of_solution(solution, self.problem, self.atoms)
        return cell(target, space, method, answer, self.atoms, before + seconds, seconds, max(most, memory))

    def _decomposed(self, space: str, method: str) -> Answer:
        return of_decomposition(decompose(self.vector, self.dictionary, self.base, method, space=space), self.problem, self.atoms)

    def _products(self, take: Products) -> tuple[Gram, float, float]:
        """Inner products, the seconds they took, and memory."""
        if take not in self._taken:
            self._taken[take] = _measured(lambda: take(self.dictionary.atoms, self.vector, iter))
        return self._taken[take]


def _measured(work: Callable[[], Result]) -> tuple[Result, float, float]:
    """(what comes out, seconds, MiB of memory)."""
    peak, started = Peak(), time.perf_counter()
    result = work()
    return result, time.perf_counter() - started, peak.mib()
