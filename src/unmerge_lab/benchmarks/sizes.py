"""What a decomposition costs at real sizes, beside three other ways, and how it grows: synthetic models on disk, one run.

    python -m unmerge_lab.benchmarks.sizes [--only headline command whole growth detection] [--json FILE] [--scratch DIR]

headline    one layer of Qwen2.5-7B: attention with a checkpoint and with an adapter as target, and all linear modules
command     ``unmerge decompose`` of an adapter, all attention modules of Qwen2.5-7B, with nothing kept and with what it keeps
whole       all linear modules of as many layers of Qwen2.5-7B as the disk holds, a checkpoint as target;
            once, without the ways that expand
growth      three sizes each of weights, adapters, rank and layers, one varied at a time
detection   precision and recall on merges with a 7B model's shapes and statistics, all groups

Ways, on the same files:

gram        inner products of the target with all adapters, and of these with each other, then the solver
known       the same with the dictionary's own products kept on disk
certificate what the certificate takes beyond them
expanded    the proposal's way: expand every adapter, keep the 100,000 entries that are largest over the dictionary, solve on those
read        reading the same bytes once
dense       non-negative least squares on the expanded vectors, where they fit into MEMORY

Seconds are of the clock and of the processor: on a machine with other work the second ones are what can be compared. A row that is run
again takes its old place in the file; the others stay.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # as the command line does, before torch is loaded

import numpy as np
import torch
from scipy.optimize import nnls as scipy_nnls

from unmerge.checkpoints import Difference
from unmerge.core.records import environment, read_json, write_json
from unmerge.decomposition import open_base, open_dictionary, open_vector
from unmerge.decomposition.blocks import problem_of
from unmerge.decomposition.dictionary import Dictionary, Vector
from unmerge.decomposition.findings import from_certificate
from unmerge.solvers import SOLVERS
from unmerge.vectors import AllWeights, gram
from unmerge_lab.studies.memory import Peak
from unmerge_lab.studies.synthetic.architectures import Architecture
from unmerge_lab.studies.synthetic.make import SYNTH, SynthDesign, synthesise
from unmerge_lab.studies.targets import targets
from unmerge_lab.studies.worker import Job, run_job

KEPT, MEMORY = 100_000, 3 << 30
WAYS = ("gram", "known", "certificate", "expanded", "read", "dense")
ROWS = ("headline", "command", "whole", "growth", "detection")
#: bytes of a layer of the whole model, with everything that is made of it, and what is left free on the disk
_LAYER, _FREE = 1_200_000_000, 5_000_000_000

Row = dict[str, Any]
Modules = Literal["attention", "linear"]
#: what a row is made of, kept as soon as it is there
Parts = Iterator[tuple[str, Row]]


@dataclass(frozen=True)
class Size:
    """What is measured: a target of three components, two of them in the dictionary."""

    architecture: str = "Qwen2.5-1.5B"
    layers: int = 4
    modules: Modules = "attention"
    adapters: int = 12
    rank: int = 32
    is_adapter: bool = False

    def make(self, folder: Path) -> None:
        """Write base, adapters and target."""
        design = SynthDesign(
            architecture=_plan(self.architecture, self.modules, folder.with_name("config.json")),
            layers=self.layers,
            vocabulary=64,
            modules=self.modules,
            known=self.adapters,
            unknown=2,
            rank=self.rank,
            groups=["mixed"],
            merges=[] if self.is_adapter else ["task_arithmetic"],
            base=not self.is_adapter,
            adapters=self.is_adapter,
        )
        synthesise(design, folder)


def _plan(architecture: str, modules: Modules, file: Path) -> str:
    """The architecture; without its MLP, which would only be written, where adapters change attention alone."""
    if modules == "linear":
        return architecture
    write_json(file, {**Architecture.named(architecture).config, "intermediate_size": 8})
    return str(file)


GROWTH: dict[str, list[Size]] = {
    "weights": [Size(name) for name in ("Qwen2.5-0.5B", "Qwen2.5-1.5B", "Qwen2.5-7B")],
    "adapters": [Size(adapters=count) for count in (6, 12, 24)],
    "rank": [Size(rank=rank) for rank in (8, 16, 32)],
    "layers": [Size(layers=count) for count in (2, 4, 8)],
}
SEVEN = Size("Qwen2.5-7B", layers=1, adapters=25)
HEADLINE = {
    "attention, checkpoint": SEVEN,
    "attention, adapter": replace(SEVEN, is_adapter=True),
    "all linear modules, checkpoint": (WHOLE := replace(SEVEN, modules="linear")),
}
#: modules that adapters change, and layers of the 7B model
DETECTION: dict[Modules, int] = {"attention": 2, "linear": 1}


def main() -> None:
    """Run the rows, print each, and keep them in a file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=ROWS, default=list(ROWS), metavar="ROW", help=f"some of {', '.join(ROWS)}")
    parser.add_argument("--json", type=Path, default=Path("runs/bench.json"), help="the file that keeps the figures")
    parser.add_argument("--scratch", type=Path, help="where models are written for a while; 12 GB at most, and the whole model")
    parser.add_argument("--whole", type=Path, help="where the whole model is made and left for another run; it is made and removed by default")
    parser.add_argument("--rounds", type=int, default=3, help="medians are of so many")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), metavar="WAY", help=f"some of {', '.join(WAYS)}")
    arguments = parser.parse_args()
    rows = read_json(arguments.json, "an earlier record")["rows"] if arguments.json.exists() else {}
    measure = {"headline": _headline, "command": _command, "whole": _whole, "growth": _growth, "detection": _detection}
    for name in arguments.only:
        rows[name] = {}
        with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch:
            for part, measured in measure[name](Path(scratch), arguments):
                rows[name][part] = measured
                record = {"rows": {row: rows[row] for row in ROWS if row in rows}, "threads": torch.get_num_threads()}
                write_json(arguments.json, {**record, "environment": environment().model_dump()})


def _headline(scratch: Path, arguments: argparse.Namespace) -> Parts:
    for name, size in HEADLINE.items():
        yield name, _measured(name, size, scratch, arguments)


def _whole(scratch: Path, arguments: argparse.Namespace) -> Parts:
    folder = arguments.whole or scratch / "whole"
    if (folder / SYNTH).exists():
        layers = read_json(folder / SYNTH, "what was made")["layers"]
    else:
        layers = min(Architecture.named(SEVEN.architecture).layers, max(shutil.disk_usage(folder.parent).free - _FREE, 0) // _LAYER)
        replace(WHOLE, layers=layers).make(folder)
    once = argparse.Namespace(**vars(arguments) | {"rounds": 1, "ways": [way for way in arguments.ways if way not in ("expanded", "dense")]})
    yield WHOLE.modules, _ways(f"{layers} layers", replace(WHOLE, layers=layers), folder, once)


def _command(scratch: Path, _: argparse.Namespace) -> Parts:
    """The command itself, in a process of its own: nothing kept, then with what it has kept."""
    synthesise(SynthDesign(architecture="Qwen2.5-7B", modules="attention", unknown=1, merges=[], base=False), scratch / "model")
    target, dictionary, result = scratch / "model" / "unknown" / "unknown-00", scratch / "model" / "known", scratch / "result.json"
    for method in ("nnls", "certificate"):
        for kept in ("nothing", "products and hashes"):
            arguments = ["decompose", target, "--dictionary", dictionary, "--method", method, "--cache", scratch / method, "--json", result]
            clock = time.perf_counter()
            process = subprocess.Popen([Path(sys.executable).with_name("unmerge"), *map(str, arguments)], stdout=subprocess.DEVNULL)
            _pid, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            found = {"method": method, "kept": kept, "seconds": time.perf_counter() - clock, "mib": used.ru_maxrss / 1024}
            if process.returncode:
                raise SystemExit("unmerge decompose failed")
            found["decomposition"] = read_json(result, "a result")["seconds"]
            print(found, flush=True)
            yield f"{method}, {kept} kept", found


def _growth(scratch: Path, arguments: argparse.Namespace) -> Parts:
    for varied, sizes in GROWTH.items():
        points = [_measured(f"{varied} {place}", size, scratch, arguments) for place, size in enumerate(sizes)]
        told = [way for way in ("gram", "known", "certificate", "expanded") if way in arguments.ways]
        exponents = {way: _exponent(points, varied, way) for way in told}
        print(varied, {way: round(value, 2) for way, value in exponents.items()}, flush=True)
        yield varied, {"points": points, "exponents": exponents}


def _exponent(points: list[Row], of: str, way: str) -> float:
    """The slope of the processor's seconds over a size, both as logarithms, by least squares."""
    sizes = np.log([point[of] for point in points])
    seconds = np.log([point["ways"][way]["cpu"] for point in points])
    return float(np.polyfit(sizes, seconds, 1)[0])


def _measured(name: str, size: Size, scratch: Path, arguments: argparse.Namespace) -> Row:
    """Make a model, measure every way on it, and remove it."""
    folder = scratch / "model"
    size.make(folder)
    row = _ways(name, size, folder, arguments)
    shutil.rmtree(folder)
    return row


def _ways(name: str, size: Size, folder: Path, arguments: argparse.Namespace) -> Row:
    """Measure every way on a model."""
    base = None if size.is_adapter else open_base(folder / "zoo-base")
    dictionary = open_dictionary([folder / "known"], base)
    (place,) = (folder / "targets").iterdir()
    target = open_vector(place, base)
    taken = gram(dictionary.atoms, target)
    known = AllWeights(dict(zip(taken.tensors, taken.gram, strict=True)))
    ways: dict[str, Callable[[], Any]] = {
        "gram": lambda: SOLVERS["nnls"](problem_of(gram(dictionary.atoms, target))),
        "known": lambda: SOLVERS["nnls"](problem_of(gram(dictionary.atoms, target, weights=known))),
        "certificate": lambda: from_certificate(dictionary, target, taken, iter),
        "expanded": lambda: _expanded(dictionary, target),
        "read": lambda: _read(folder, target),
    }
    weights = int(taken.entries[np.einsum("mii->m", taken.gram) > 0].sum())
    if 16 * weights * (size.adapters + 1) < MEMORY:
        ways["dense"] = lambda: _dense(dictionary, target)
    found = {way: _timed(work, arguments.rounds) for way, work in ways.items() if way in arguments.ways}
    row = {"weights": weights, "layers": size.layers, "adapters": size.adapters, "rank": size.rank, "architecture": size.architecture, "ways": found}
    told = "   ".join(f"{way} {figures['seconds']:.2f} s ({figures['cpu']:.2f}), {figures['mib']:.0f} MiB" for way, figures in found.items())
    print(f"{name}: {weights:,} weights, {size.adapters} adapters of rank {size.rank}: {told}", flush=True)
    return row


def _timed(work: Callable[[], Any], rounds: int) -> Row:
    """Medians of the seconds, and the largest growth of resident memory."""
    seconds, cpu, mib = [], [], []
    for _ in range(rounds):
        peak, clock, processor = Peak(), time.perf_counter(), time.process_time()
        work()
        seconds.append(time.perf_counter() - clock)
        cpu.append(time.process_time() - processor)
        mib.append(peak.mib())
    return {"seconds": statistics.median(seconds), "cpu": statistics.median(cpu), "mib": max(mib)}


def _expanded(dictionary: Dictionary, target: Vector) -> np.ndarray:
    """Expand, mask, solve; one tensor's expanded adapters in memory at a time."""
    tensors = list(dictionary.atoms[0].shapes)
    share = KEPT / sum(int(np.prod(target.shapes[tensor])) for tensor in tensors)
    columns: list[list[np.ndarray]] = [[] for _ in dictionary.atoms]
    rows = []
    for tensor in tensors:
        expanded = [atom.delta(tensor).dense().reshape(-1) for atom in dictionary.atoms]
        largest = torch.zeros_like(expanded[0])
        for values in expanded:
            torch.maximum(largest, values.abs(), out=largest)
        kept = torch.topk(largest, int(share * largest.numel())).indices
        for column, values in zip(columns, expanded, strict=True):
            column.append(values[kept].numpy())
        rows.append(target.delta(tensor).dense().reshape(-1)[kept].numpy())
    matrix = np.stack([np.concatenate(column) for column in columns], 1).astype(np.float64)
    coefficients: np.ndarray = scipy_nnls(matrix, np.concatenate(rows).astype(np.float64))[0]
    return coefficients


def _dense(dictionary: Dictionary, target: Vector) -> np.ndarray:
    """Non-negative least squares on all weights, expanded."""
    tensors = list(dictionary.atoms[0].shapes)
    matrix = np.stack(
        [np.concatenate([atom.delta(tensor).dense().reshape(-1).double().numpy() for tensor in tensors]) for atom in dictionary.atoms], 1
    )
    expanded = np.concatenate([target.delta(tensor).dense().reshape(-1).double().numpy() for tensor in tensors])
    coefficients: np.ndarray = scipy_nnls(matrix, expanded)[0]
    return coefficients


def _read(folder: Path, target: Vector) -> int:
    """The bytes of base, target and dictionary, through one buffer."""
    files = [*folder.glob("known/*/*.safetensors"), *folder.glob("targets/*/*.safetensors")]
    files += folder.glob("zoo-base/*.safetensors") if isinstance(target, Difference) else []
    buffer, total = memoryview(bytearray(1 << 24)), 0
    for file in files:
        with file.open("rb", buffering=0) as stream:
            while got := stream.readinto(buffer):
                total += got
    return total


def _detection(scratch: Path, _: argparse.Namespace) -> Parts:
    for modules, layers in DETECTION.items():
        folder = scratch / modules
        plan = _plan("Qwen2.5-7B", modules, scratch / "config.json")
        design = SynthDesign(architecture=plan, layers=layers, vocabulary=64, modules=modules)
        synthesise(design, folder / "model")
        study = design.study().model_copy(update={"zoo": str(folder / "model")})
        zoo = study.open_zoo()
        for target in targets(study, zoo):
            job = Job(target, zoo, zoo.base, folder / "out", tuple(study.cells), keep=True)
            run_job(job)
            (cell,) = job.journal.records()
            found: dict[str, Any] = {"modules": modules, "group": target.group, "merge": target.merge, "named": cell.named, "truth": cell.truth}
            found |= {"precision": cell.precision, "recall": cell.recall, "seconds": cell.seconds}
            print(target.name, found, flush=True)
            yield f"{modules}, {target.name}", found
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
