"""Measure `unmerge recover` on the forms in which people write mergekit configurations: what it answers, and in how much processor time.

    python -m unmerge_lab.benchmarks.recover_forms [--out DIR] [--json FILE] [--only PART OF A NAME] [--seconds LIMIT] [--part I/N]

The forms are in recover_forms.yml. Each target is made and recovered in a process of its own, forked when all libraries are loaded; one
file keeps what came of it, so that a run that was cut short is taken up where it stopped.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import mergekit.merge_methods  # what a child would have to load again  # noqa: F401
import torch
import yaml

from unmerge.core.records import environment, read_json, write_json
from unmerge.decomposition import open_base, open_dictionary, open_vector
from unmerge.recipes import merge
from unmerge.recipes.recover import recover
from unmerge_lab import embedded_zoo
from unmerge_lab.zoo.embedded import BASE, KNOWN

FORMS = Path(__file__).with_suffix(".yml")
#: a recipe that makes this share of the changed weights again is right, whatever its name
REBUILT = 0.999
#: methods that draw masks, which no recipe can draw again
DRAWN = ("dare_linear", "dare_ties", "della", "della_linear")
#: how far weights and densities that were read off random masks may be from the typed ones, to be right
NEAR = 0.02


def main() -> None:
    """Make, recover, compare; keep what came."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/recover-forms"), help="folder for finished forms")
    parser.add_argument("--json", type=Path, default=Path("runs/recover-forms.json"), help="the file that keeps the figures")
    parser.add_argument("--only", default="", help="forms whose names hold this")
    parser.add_argument("--seconds", type=int, default=600, help="of processor time, after which a form is stopped")
    parser.add_argument("--part", default="0/1", help="I/N: every N-th form, from the I-th on")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # a process that has threads must not be forked
    first, step = (int(number) for number in arguments.part.split("/"))
    forms: dict[str, Any] = yaml.safe_load(FORMS.read_text(encoding="utf-8"))
    files = {name: arguments.out / f"{re.sub('[^a-z0-9_]+', '-', name.lower())}.json" for name in forms}
    for name in [name for name in forms if arguments.only in name][first::step]:
        if not files[name].exists():
            with tempfile.TemporaryDirectory() as scratch:
                write_json(files[name], {"form": name, **outcome(forms[name], Path(scratch), arguments.seconds)})
            print(name, _line(read_json(files[name], "an outcome")), flush=True)
    if not arguments.only and step == 1:
        outcomes = [read_json(file, "an outcome") for file in files.values() if file.exists()]
        write_json(arguments.json, {"outcomes": outcomes, "planned": len(forms), "environment": environment().model_dump()})


def outcome(form: Any, folder: Path, seconds: int) -> dict[str, Any]:
    """Make one form's target, recover it, and set what came beside what it was made from."""
    shutil.copytree(embedded_zoo() / BASE, folder / "base")
    documents = [_placed(document, folder / "base") for document in (form if isinstance(form, list) else [form])]
    file = folder / "target.yml"
    file.write_text(yaml.safe_dump_all(documents, sort_keys=False), encoding="utf-8")
    made = _forked(lambda: merge(file, folder / "target", seed=1), seconds)
    if made["status"] != 0:
        return {"verdict": "not made", **made}
    found = _forked(lambda: _recovered(folder), seconds)
    record = read_json(folder / "found.json", "a recipe") if (folder / "found.json").exists() else {}
    kept = {key: record.get(key) for key in ("answer", "says", "method", "parameters", "identical_share", "acted", "unknown", "rivals", "looked")}
    proof = {key: value for key, value in (record.get("proof") or {}).items() if key != "by_kind"}
    return {"verdict": verdict(documents, record), **found, "found": kept, "proof": proof}


def verdict(documents: list[dict[str, Any]], record: Mapping[str, Any]) -> str:
    """What an answer is worth beside what the target was made from."""
    answer, last = record.get("answer"), documents[-1]
    if answer is None:
        return "no answer"
    if (record.get("identical_share") or 0.0) >= REBUILT:
        return "identical"
    if last["merge_method"] in DRAWN and answer == "recipe" and record["method"] == last["merge_method"]:
        settings = {model["model"].rpartition("/")[2]: model.get("parameters", {}) for model in last["models"] if model.get("parameters")}
        divided = record["scale_free"] or bool(last.get("parameters", {}).get("normalize"))
        return "read off" if _same_settings(settings, record["parameters"]["models"], divided) else "method only"
    return "part" if answer == "part of a recipe" else "wrong" if answer == "recipe" else "nothing"


def _same_settings(typed: Mapping[str, Any], found: Mapping[str, Any], divided: bool) -> bool:
    """Whether weights (over their sum, where they are divided by it) and densities of the models are the typed ones, near enough."""
    ours, theirs = ({name: settings["weight"] for name, settings in models.items() if "weight" in settings} for models in (found, typed))
    if divided and all(isinstance(weight, float | int) for weight in [*ours.values(), *theirs.values()]):
        ours, theirs = ({name: weight / sum(weights.values()) for name, weight in weights.items()} for weights in (ours, theirs))
    densities = [{name: settings["density"] for name, settings in models.items() if "density" in settings} for models in (found, typed)]
    return all(
        mine.keys() == yours.keys() and all(_near(yours[name], mine[name]) for name in yours) for mine, yours in ((ours, theirs), tuple(densities))
    )


def _near(typed: Any, found: Any) -> bool:
    if isinstance(typed, list):
        return isinstance(found, list) and len(found) == len(typed) and all(_near(*pair) for pair in zip(typed, found, strict=True))
    return isinstance(found, float | int) and abs(found - typed) <= NEAR * max(abs(typed), 1.0)


def _placed(value: Any, base: Path) -> Any:
    """The configuration with folders in place of the names of models."""
    if isinstance(value, dict):
        return {key: _model(content, base) if key in ("model", "base_model") else _placed(content, base) for key, content in value.items()}
    return [_placed(content, base) for content in value] if isinstance(value, list) else value


def _model(name: str, base: Path) -> str:
    model, plus, adapter = name.partition("+")
    return f"{base}+{embedded_zoo() / KNOWN / adapter}" if plus else str(base) if model == "base" else model


def _recovered(folder: Path) -> None:
    base = open_base(folder / "base")
    recover(open_vector(folder / "target", base), open_dictionary([embedded_zoo() / KNOWN], base), base, folder / "found.yml")


def _forked(run: Callable[[], Any], seconds: int) -> dict[str, Any]:
    """Run something in a process of its own: how it ended, the processor time that it took and the memory that it held."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5))
            run()
            status = 0
        finally:
            os._exit(status)
    _, status, used = os.wait4(child, 0)
    processor = round(used.ru_utime + used.ru_stime, 1)
    return {"status": os.waitstatus_to_exitcode(status), "processor_seconds": processor, "peak_mb": used.ru_maxrss // 1024}


def _line(kept: Mapping[str, Any]) -> str:
    found = kept.get("found", {})
    share = found.get("identical_share")
    return f"{kept['verdict']}: {found.get('answer')} {found.get('method')} {share} {kept.get('processor_seconds')} s; {found.get('says')}"


if __name__ == "__main__":
    main()
