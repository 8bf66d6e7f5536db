"""Full fine-tunes as atoms: trained from nothing, merged by mergekit, found by the correlation test; beside them the zoo's adapters.

    python -m unmerge_lab.benchmarks.full_finetunes [--out DIR] [--targets COUNT] [--json FILE]

Every task of the embedded zoo is trained once more without a LoRA, all weights of the base, as a checkpoint in bfloat16. Half of
them are the dictionary, by the zoo's own halves. Targets: COUNT for each of three groups (known, mixed, unknown), five merges and
two dtypes; 2 to 5 components, every other target with unequal weights. Each is looked at in every space. A run that was cut short
is taken up where it stopped.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from unmerge.certificate import correlation
from unmerge.certificate.correlation import CorrelationTest
from unmerge.core.records import environment, fingerprint, read_json, sha256, write_json
from unmerge.decomposition import open_base, open_dictionary, open_vector
from unmerge.decomposition.spaces import SPACES
from unmerge.evaluation import exact_match
from unmerge.evaluation.models import load_model
from unmerge.recipes import merge
from unmerge.training import TrainingRecipe, train_adapters
from unmerge_lab import embedded_zoo
from unmerge_lab.zoo.build import ZOO_RECORD, ZooRecord
from unmerge_lab.zoo.embedded import BASE, KNOWN, UNKNOWN, held_out, training_recipe, write_task
from unmerge_lab.zoo.tasks import TASKS

#: a full fine-tune at this rate moves the weights by .017 of their norm
LEARNING_RATE = 2e-4
GROUPS = ("known", "mixed", "unknown")
METHODS = {"task_arithmetic": {}, "linear": {}, "ties": {"density": 0.5}, "dare_linear": {"density": 0.5}, "dare_ties": {"density": 0.5}}
#: the space ``layer`` sees the same weights as ``exact``
SEEN = ("exact", "nonzero", "compressed")


@dataclass(frozen=True)
class Target:
    """What to merge."""

    group: str
    method: str
    dtype: str
    weights: dict[str, float]
    seed: int


def main() -> None:
    """Train, merge, test; print the tables and keep them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/full"), help="folder for checkpoints and finished targets")
    parser.add_argument("--targets", type=int, default=4, help="of each group, merge and dtype")
    parser.add_argument("--json", type=Path, default=Path("runs/full_finetunes.json"), help="the file that keeps the figures")
    parser.add_argument("--only-train", action="store_true", help="train what is not trained yet, and stop")
    arguments = parser.parse_args()
    zoo = ZooRecord.model_validate(read_json(embedded_zoo() / ZOO_RECORD, "the zoo's record"))
    checkpoints = arguments.out / "checkpoints"
    if not checkpoints.exists():
        train_adapters(_recipe([*zoo.known, *zoo.unknown], arguments.out / "tasks"), checkpoints, lambda _: lambda *_: None)
    if arguments.only_train:
        return
    full = {name: checkpoints / name for name in (*zoo.known, *zoo.unknown)}
    adapters = {name: embedded_zoo() / half / name for half, names in ((KNOWN, zoo.known), (UNKNOWN, zoo.unknown)) for name in names}
    figures: dict[str, Any] = {}
    for kind, folders in (("full fine-tunes", full), ("adapters", adapters)):
        dictionary = {name: folders[name] for name in zoo.known}
        outcomes = [
            _outcome(target, dictionary, folders, arguments.out / "targets" / fingerprint([kind, _test(), asdict(target)]))
            for target in _targets(zoo, arguments.targets)
        ]
        figures[kind] = {"rows": _rows(outcomes), "rejected in the unknown group": _rejected(outcomes), "relations": _relations(dictionary)}
        _show(kind, figures[kind])
    write_json(arguments.json, {"learning_rate": LEARNING_RATE, **figures, "environment": environment().model_dump()})


def _recipe(names: Sequence[str], data: Path) -> TrainingRecipe:
    """The zoo's own, of all weights."""
    tasks = [task for task in TASKS if task.name in names]
    for task in tasks:
        write_task(data, task, seed=0)
    recipe = training_recipe(tasks, 0, embedded_zoo() / BASE).beside(data)
    return recipe.model_copy(update={"lora": None, "training": recipe.training.model_copy(update={"learning_rate": LEARNING_RATE})})


def _test() -> str:
    """Which test: an outcome of another one is not taken up."""
    return sha256(Path(correlation.__file__))


def _targets(zoo: ZooRecord, count: int) -> Iterator[Target]:
    rng = np.random.default_rng(0)
    for group, method, dtype, place in itertools.product(GROUPS, METHODS, ("float32", "bfloat16"), range(count)):
        size = int(rng.integers(2, 6))
        known = {"known": size, "mixed": max(size // 2, 1), "unknown": 0}[group]
        names = [*rng.choice(zoo.known, known, replace=False).tolist(), *rng.choice(zoo.unknown, size - known, replace=False).tolist()]
        weights = rng.uniform(0.3, 1.0, size).round(2).tolist() if place % 2 else [1.0] * size
        yield Target(group, method, dtype, dict(zip(names, weights, strict=True)), seed=place)


def _outcome(target: Target, dictionary: dict[str, Path], folders: dict[str, Path], record: Path) -> dict[str, Any]:
    """What the test says of one target, in every space, and how the merge does on its own tasks."""
    file = record.with_suffix(".json")
    if not file.exists():
        base = open_base(embedded_zoo() / BASE)
        atoms = [open_vector(folder, base) for folder in dictionary.values()]
        with tempfile.TemporaryDirectory() as scratch:
            merged = _merged(target, folders, Path(scratch))
            vector = open_vector(merged, base)
            found = {space: CorrelationTest(SPACES[space].products(atoms, vector, iter)).presence() for space in SEEN}
            model, tokenizer = load_model(merged)
        items = {name: held_out()[name] for name in target.weights}
        skills = {name: float(np.mean(exact_match(model, tokenizer, examples))) for name, examples in items.items()}
        names = np.array(list(dictionary))
        spaces = {
            space: {
                "named": names[presence.present].tolist(),
                "score": dict(zip(names.tolist(), presence.score.tolist(), strict=True)),
                "p_value": dict(zip(names.tolist(), presence.p_value.tolist(), strict=True)),
            }
            for space, presence in found.items()
        }
        inside = [name for name in target.weights if name in dictionary]
        write_json(file, {"target": asdict(target), "inside": inside, "skills": skills, "spaces": spaces})
    outcome: dict[str, Any] = read_json(file, "an outcome")
    return outcome


def _merged(target: Target, folders: dict[str, Path], scratch: Path) -> Path:
    configuration = {
        "merge_method": target.method,
        "base_model": str(embedded_zoo() / BASE),
        "dtype": target.dtype,
        "models": [{"model": str(folders[name].resolve()), "parameters": {"weight": weight}} for name, weight in target.weights.items()],
        "parameters": METHODS[target.method],
    }
    (scratch / "merge.yml").write_text(yaml.safe_dump(configuration), encoding="utf-8")
    merge(scratch / "merge.yml", scratch / "target", target.seed)
    return scratch / "target"


def _rows(outcomes: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """By group and merge: how the merges do on their own tasks, and what the test says of them in every space."""
    rows = []
    for group, method in itertools.product(GROUPS, METHODS):
        some = [outcome for outcome in outcomes if (outcome["target"]["group"], outcome["target"]["method"]) == (group, method)]
        skills = float(np.mean([score for outcome in some for score in outcome["skills"].values()]))
        spaces = {space: _score([(set(outcome["spaces"][space]["named"]), set(outcome["inside"])) for outcome in some]) for space in SEEN}
        rows.append({"group": group, "method": method, "targets": len(some), "skills kept": skills, "spaces": spaces})
    return rows


def _score(pairs: Sequence[tuple[set[str], set[str]]]) -> dict[str, float | None]:
    """Precision, recall and perfect answers of (named, inside); None where nothing is named, or nothing inside."""
    right = sum(len(named & inside) for named, inside in pairs)
    named, inside = (sum(map(len, sets)) for sets in zip(*pairs, strict=True))
    return {
        "precision": right / named if named else None,
        "recall": right / inside if inside else None,
        "perfect": float(np.mean([one == two for one, two in pairs])),
        "false names": named - right,
    }


def _rejected(outcomes: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """How often an absent atom is rejected where nothing known is in the target."""
    unknown = [outcome["spaces"] for outcome in outcomes if outcome["target"]["group"] == "unknown"]
    p_values = {space: np.array([value for spaces in unknown for value in spaces[space]["p_value"].values()]) for space in SEEN}
    return {space: {str(level): float(np.mean(values <= level)) for level in (0.05, 0.01, 0.001)} for space, values in p_values.items()}


def _relations(dictionary: dict[str, Path]) -> dict[str, float]:
    """Cosines between the atoms, over all weights."""
    base = open_base(embedded_zoo() / BASE)
    atoms = open_dictionary(list(dictionary.values()), base).atoms
    inner = SPACES["exact"].products(atoms, atoms[0], iter).gram.sum(0)
    norms = np.sqrt(np.diag(inner))
    cosines = (inner / np.outer(norms, norms))[np.triu_indices(len(inner), 1)]
    return {"cosine, mean": float(cosines.mean()), "cosine, largest": float(cosines.max())}


def _show(kind: str, figures: dict[str, Any]) -> None:
    print(f"{kind}: cosine {figures['relations']['cosine, mean']:.3f} on average, {figures['relations']['cosine, largest']:.3f} at most")
    print(f"  {'group':9s}{'merge':17s}{'targets':>7s}{'skills':>8s}   precision / recall / perfect: {', '.join(SEEN)}")
    for row in figures["rows"]:
        spaces = [" / ".join(_number(row["spaces"][space][name]) for name in ("precision", "recall", "perfect")) for space in SEEN]
        print(f"  {row['group']:9s}{row['method']:17s}{row['targets']:7d}{row['skills kept']:8.2f}   {'    '.join(spaces)}")
    for space, rates in figures["rejected in the unknown group"].items():
        print(f"  rejected in the unknown group, {space}: {', '.join(f'{rate:.3f} at {level}' for level, rate in rates.items())}")


def _number(share: float | None) -> str:
    return "   -" if share is None else f"{share:.2f}"


if __name__ == "__main__":
    main()
