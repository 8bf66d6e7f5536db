"""A whole study: every target made and decomposed by every method in every space, in several processes, again and again if need be.

    DIR/job.json                 which study this is
    DIR/cells/TARGET.jsonl       finished cells, a line each; what a run that was cut short leaves to the next
    DIR/targets/TARGET           a target while it is in use
    DIR/cells.parquet, summary.parquet, study.json      the results (see ``report.study_record``)

A study is known by its design, by the hashes of its zoo and of the code, and by the libraries' versions; another one is not mixed into
its folder.
"""

from __future__ import annotations

import fcntl
import multiprocessing
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path

import unmerge
from unmerge.core.errors import BadOutput, UnmergeError
from unmerge.core.records import environment, fingerprint, read_json, sha256, write_json
from unmerge.decomposition import open_base, open_dictionary
from unmerge_lab.report.study_record import CELLS, RECORD, SUMMARY, Cell, StudyRecord, Summary, write_rows
from unmerge_lab.studies.design import StudyDesign, Zoo
from unmerge_lab.studies.make_target import base_in
from unmerge_lab.studies.semantics import alignments, similarities
from unmerge_lab.studies.summary import summaries
from unmerge_lab.studies.targets import EQUAL, LEAST, MOST, targets
from unmerge_lab.studies.worker import Job, run_in_worker, run_job, start_worker
from unmerge_lab.zoo.embedded import KNOWN, UNKNOWN

#: told (cells done, cells in all)
Watch = Callable[[int, int], None]


def run_study(design: StudyDesign, out: Path, watch: Watch, jobs: int = 1, *, keep: bool = False) -> StudyRecord:
    """Run a study, or what an earlier run of it left.

    Args:
        design: what to do.
        out: its folder.
        watch: told of the cells that this run does.
        jobs: processes; with one, everything is done in this one.
        keep: leave the targets on disk.

    Returns:
        The record that lies in ``out/study.json``.

    Raises:
        BadInput: the zoo is none, or an input is not what it should be.
        BadOutput: ``out`` holds something else, or cannot be written.
    """
    started = time.monotonic()
    zoo = design.open_zoo()
    # a model that is not there is refused before the work
    measures = similarities(zoo, design.sentence_model) if "unknown" in design.groups else {}
    base = open_base(zoo.base)
    dictionary = {atom.name: atom.source() for atom in open_dictionary([zoo.folder / KNOWN], base).atoms}
    others = {atom.name: atom.source() for atom in open_dictionary([zoo.folder / UNKNOWN], base).atoms} if zoo.unknown else {}
    hashes = [base.source().sha256, {name: found.sha256 for name, found in (dictionary | others).items()}]
    asked = design.model_dump(mode="json", exclude={"train", "known", "verify", "zoo", "sentence_model"})
    mark = claim(out, fingerprint([asked, hashes, environment().versions, code_of(Path(unmerge.__file__).parent)]))
    with _alone(mark):
        work = _jobs(design, zoo, out, keep=keep)
        missing = [len(job.missing()) for job in work]
        todo, done = sum(missing), 0
        for count in _run([job for job, count in zip(work, missing, strict=True) if count], jobs):
            done += count
            watch(done, todo)
        if not keep:
            shutil.rmtree(out / "targets", ignore_errors=True)  # what a killed run left of its targets
        cells = [cell for job in work for cell in _in_order(job)]
    write_rows(out / CELLS, Cell, cells)
    write_rows(out / SUMMARY, Summary, summaries(cells))
    record = StudyRecord(
        design=design.model_dump(mode="json"),
        drawn={"equal": EQUAL, "least": LEAST, "most": MOST},
        base=base.source(),
        dictionary=dictionary,
        targets=len(work),
        cells=len(cells),
        jobs=jobs,
        seconds=round(time.monotonic() - started, 1),
        resumed=len(cells) - todo,
        alignment=alignments(cells, list(dictionary), measures),
        environment=environment(),
    )
    write_json(out / RECORD, record)
    return record


def code_of(package: Path) -> dict[str, str]:
    """Hashes of the code that a cell depends on: all but commands and reports. A cell of other code is not one of this study."""
    files = sorted(file.relative_to(package) for file in package.rglob("*.py"))
    return {str(file): sha256(package / file) for file in files if file.parts[0] not in ("cli", "report")}


def claim(out: Path, job: str) -> Path:
    """Take an empty folder, or one in which the same study was begun. Returns the file that says which."""
    mark = out / "job.json"
    if not mark.exists():
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise BadOutput(where=out, found="it exists already", hint="remove it or choose another --out")
        write_json(mark, {"job": job})
    elif read_json(mark, "the study's mark") != {"job": job}:
        raise BadOutput(where=out, found="another study, or one of another zoo or version", hint="remove it or choose another --out")
    return mark


@contextmanager
def _alone(mark: Path) -> Iterator[None]:
    """Two runs in one folder would write over each other. The lock ends with the process, however that ends."""
    with mark.open(encoding="utf-8") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BadOutput(where=mark.parent, found="another run at work on it", hint="wait for it, or choose another --out") from error
        yield


def _jobs(design: StudyDesign, zoo: Zoo, out: Path, *, keep: bool) -> list[Job]:
    drawn = targets(design, zoo)
    bases = {dtype: base_in(zoo.base, dtype, out.resolve()) for dtype in sorted({target.dtype for target in drawn})}
    return [Job(target, zoo, bases[target.dtype], out.resolve(), tuple(design.cells), keep) for target in drawn]


def _run(jobs: Sequence[Job], processes: int) -> Iterator[int]:
    """Do all jobs; after each, how many cells it was."""
    if processes == 1:
        yield from map(run_job, jobs)
        return
    with _pool(min(processes, max(len(jobs), 1))) as pool:
        try:
            for future in as_completed([pool.submit(run_in_worker, job) for job in jobs]):
                result = future.result()
                if isinstance(result, str):
                    raise UnmergeError(result)
                yield result
        except BrokenProcessPool as error:
            raise UnmergeError("a process of the study was ended from outside, for want of memory perhaps; run the same command again") from error


@contextmanager
def _pool(processes: int) -> Iterator[ProcessPoolExecutor]:
    """Processes that do not outlive the block, however it is left."""
    before = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), start_worker)
    try:
        yield pool
    except BaseException:
        for process in set(multiprocessing.active_children()) - before:
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _in_order(job: Job) -> list[Cell]:
    """A target's cells in the order of the design."""
    place = {pair: index for index, pair in enumerate(job.cells)}
    return sorted((cell for cell in job.journal.records() if (cell.space, cell.method) in place), key=lambda cell: place[cell.space, cell.method])
