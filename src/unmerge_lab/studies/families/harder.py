"""A zoo on which methods differ: adapters as alike as those of the published study, drawn by stated rules and really trained.

The published study's 15 adapters change attention alone (q, k, v, o), share seeds and answer formats, partly continue one another, and point
the same way by .1 to .5; on them nnls named three atoms for each right one. Here:

    1. One lab trains them all: rank 16 of 128, alpha 16, learning rate .002, one seed, so that all start from the same first factors.
    2. All answers open alike: the lab's format.
    3. Five are trained from the base, each on a task of its own, and each of them is continued on two other tasks, for twice as long.
    4. Eight of the fifteen, drawn by the seed, are the dictionary.

Nothing was chosen by what a decomposition makes of them; the lengths in rule 3 were set by the cosines alone.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

from unmerge.core.records import write_json, write_text
from unmerge.core.staging import staged
from unmerge_lab import embedded_zoo
from unmerge_lab.studies.families.corpora import FORMATS
from unmerge_lab.studies.families.design import Run, Settings
from unmerge_lab.studies.families.manifest import ADAPTERS, MANIFEST
from unmerge_lab.studies.families.train import train_dictionary
from unmerge_lab.zoo.embedded import BASE, BASE_NAME, KNOWN, UNKNOWN
from unmerge_lab.zoo.tasks import TASKS

#: adapters from the base, continuations of each, and how many of all are the dictionary
FIRST, CONTINUED, IN_DICTIONARY = 5, 2, 8
#: steps of the first ones, and of the continuations
STEPS, MORE = 60, 120
_SETTINGS = Settings(rank=16, alpha=1.0, learning_rate=2e-3, steps=STEPS, modules="q,k,v,o", answer_format=FORMATS[1])


def draw_harder_zoo(seed: int) -> tuple[list[Run], list[str], list[str]]:
    """The trainings, and the names of the adapters in the dictionary and out of it."""
    draws = random.Random(f"harder/{seed}")
    tasks = draws.sample([task.name for task in TASKS], FIRST * (1 + CONTINUED))
    start = draws.randrange(1 << 30)
    runs = []
    for _ in range(FIRST):
        first = tasks.pop()
        runs.append(Run(first, "first", "lab", first, seed, start, _SETTINGS, (STEPS,)))
        runs += [Run(task, "continued", "lab", task, seed, start, _SETTINGS, (MORE,), parent=first) for task in (tasks.pop(), tasks.pop())]
    names = draws.sample([run.name for run in runs], len(runs))
    return runs, sorted(names[:IN_DICTIONARY]), sorted(names[IN_DICTIONARY:])


def build_harder_zoo(out: Path, seed: int = 0, watch: Callable[[str], None] = lambda _: None) -> None:
    """Train the adapters and lay them out as a zoo, so that ``unmerge study`` takes the folder.

    Args:
        out: the folder to make.
        seed: of tasks, starts and halves.
        watch: told the name of every adapter that is trained.
    """
    runs, known, unknown = draw_harder_zoo(seed)
    with staged(out, [repr(run) for run in runs]) as stage:
        shutil.copytree(embedded_zoo() / BASE, stage.folder / BASE, dirs_exist_ok=True)
        trained = stage.folder / ".trained"
        shutil.rmtree(trained, ignore_errors=True)
        manifest = train_dictionary(out.name, runs, stage.folder / BASE, BASE_NAME, trained, watch)
        for half, names in ((KNOWN, known), (UNKNOWN, unknown)):
            for name in names:
                (trained / ADAPTERS / name).rename(_made(stage.folder / half) / name)
        write_json(stage.folder / MANIFEST, manifest)
        write_text(stage.folder / "README.md", f"{__doc__}")
        shutil.rmtree(trained)


def _made(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    return folder
