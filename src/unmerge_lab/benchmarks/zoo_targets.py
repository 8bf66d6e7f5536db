"""The embedded zoo, targets that mergekit makes of its adapters, and near duplicates of them."""

from __future__ import annotations

import itertools
import math
import shutil
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from unmerge.checkpoints import Adapter, Checkpoint
from unmerge.checkpoints.write import save_tensors
from unmerge.checkpoints.write_adapter import write_adapter
from unmerge.core.examples import read_examples, write_examples
from unmerge.core.records import write_json
from unmerge.decomposition import Decomposition, decompose, open_base, open_dictionary, open_vector
from unmerge.recipes import merge
from unmerge.training.adapters import train_adapter
from unmerge.vectors import Held, LowRank, gram
from unmerge_lab import embedded_zoo
from unmerge_lab.studies.make_target import base_in
from unmerge_lab.zoo.embedded import BASE, BASE_NAME, KNOWN, UNKNOWN, training_recipe, write_task
from unmerge_lab.zoo.tasks import TASKS


class Zoo:
    """The embedded zoo; what is made of it goes to a scratch folder.

    Attributes:
        known, unknown: folders of the adapters, the dictionary's and the others.
    """

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch
        self.known, self.unknown = (
            sorted(path.parent for path in (embedded_zoo() / half).glob("*/adapter_config.json")) for half in (KNOWN, UNKNOWN)
        )
        self._names = (f"target-{count}" for count in itertools.count())

    @cached_property
    def bases(self) -> dict[str, Path]:
        """The base by dtype; mergekit merges an adapter into it in the base's own."""
        return {dtype: base_in(embedded_zoo() / BASE, dtype, self.scratch) for dtype in ("bfloat16", "float32")}

    def merged(self, weights: Mapping[Path, float], method: str, dtype: str, density: float | None = None, seed: int = 0) -> Path:
        """A merge of some adapters, by folder and weight."""
        out = self.scratch / next(self._names)
        recipe: dict[str, Any] = {
            "merge_method": method,
            "base_model": str(self.bases[dtype]),
            "dtype": dtype,
            "models": [{"model": str(folder), "parameters": {"weight": weight}} for folder, weight in weights.items()],
        }
        if density is not None:
            recipe["parameters"] = {"density": density}
        file = out.with_suffix(".yml")
        file.write_text(yaml.safe_dump(recipe), encoding="utf-8")
        merge(file, out, seed)
        return out

    def decomposed(self, target: Path, dtype: str, *more: Path) -> Decomposition:
        """What the certificate says of a target, over the known adapters and those in some more folders. The target is then removed."""
        base = open_base(self.bases[dtype])
        dictionary = open_dictionary([embedded_zoo() / KNOWN, *more], base)
        result = decompose(open_vector(target, base), dictionary, base, method="certificate")
        shutil.rmtree(target)
        return result

    def variants(self, names: Sequence[str], cosines: Sequence[float]) -> dict[str, list[tuple[Path, Path]]]:
        """(original, variant) of some known adapters, by the kind of variant: another seed, a continued training, a cosine."""
        kinds: dict[str, list[tuple[Path, Path]]] = {}
        for name in names:
            original = embedded_zoo() / KNOWN / name
            made = {"another seed": self._another_seed(name), "continued training": self._continued(name)}
            made |= {f"cosine {cosine}": self._at_cosine(name, cosine) for cosine in cosines}
            for kind, deltas in made.items():
                folder = self.scratch / kind / f"{name}-variant"
                write_adapter(folder, deltas, BASE_NAME)
                kinds.setdefault(kind, []).append((original, folder))
        return kinds

    def _another_seed(self, name: str) -> dict[str, LowRank]:
        """Trained on the same task, from other data and another start."""
        return self._trained(name, embedded_zoo() / BASE, seed=1)

    def _continued(self, name: str) -> dict[str, LowRank]:
        """The adapter, and what training on its task changes in a base that it is merged into."""
        original = embedded_zoo() / KNOWN / name
        more = self._trained(name, self.merged({original: 1.0}, "task_arithmetic", "float32"), seed=2, share=0.25)
        return {tensor: _sum(delta, more[tensor]) for tensor, delta in _low_rank(original).items()}

    def _trained(self, name: str, base: Path, seed: int, share: float = 1.0) -> dict[str, LowRank]:
        (task,) = (task for task in TASKS if task.name == name)
        files = self.scratch / f"tasks-{seed}"
        write_task(files, task, seed)
        recipe = training_recipe([task], seed, base).beside(files)
        file = files / f"{name}.train.jsonl"
        examples = read_examples(file)
        write_examples(file, examples[: int(share * len(examples))])
        folder = self.scratch / f"trained-{seed}" / name
        folder.mkdir(parents=True)
        train_adapter(recipe, name, folder)
        return _low_rank(folder)

    def _at_cosine(self, name: str, cosine: float) -> dict[str, LowRank]:
        """As long as the adapter, by a low-rank change as large in every tensor as its own: the adapter's spectrum in random directions."""
        generator = torch.Generator().manual_seed(round(1000 * cosine))
        deltas = {}
        for tensor, delta in _low_rank(embedded_zoo() / KNOWN / name).items():
            _, values, _ = delta.svd()
            left, right = (torch.randn(side, len(values), generator=generator, dtype=torch.float64) for side in delta.shape)
            other = LowRank((torch.linalg.qr(left)[0] * values).float(), torch.linalg.qr(right)[0].T.float())
            deltas[tensor] = _sum(delta.scaled(cosine), other.scaled(math.sqrt(1 - cosine**2)))
        return deltas


def write_model(tensors: Mapping[str, Tensor], base: Checkpoint, dtype: str, folder: Path) -> Path:
    """Write tensors as a model like a base, with its configuration and its tokenizer; the folder is made.

    Args:
        tensors: every tensor of the base, in the dtype that is written.
        base: of which the configuration is.
        dtype: what the configuration says of it.
        folder: to make.
    """
    folder.mkdir()
    save_tensors(folder / "model.safetensors", dict(tensors))
    write_json(folder / "config.json", {**base.config, "dtype": dtype})
    for file in base.folder.glob("token*"):
        shutil.copyfile(file, folder / file.name)
    return folder


def cosine_between(first: Path, second: Path) -> float:
    """The cosine of two adapters."""
    products = gram([Adapter.open(first), Adapter.open(second)], Held("none", {})).gram.sum(0)
    return float(products[0, 1] / math.sqrt(products[0, 0] * products[1, 1]))


def _low_rank(folder: Path) -> dict[str, LowRank]:
    adapter = Adapter.open(folder)
    deltas = {tensor: adapter.delta(tensor) for tensor in adapter.shapes}
    return {tensor: delta for tensor, delta in deltas.items() if isinstance(delta, LowRank)}


def _sum(one: LowRank, other: LowRank) -> LowRank:
    return LowRank(torch.cat([one.b.float(), other.b.float()], 1), torch.cat([one.a.float(), other.a.float()]))
