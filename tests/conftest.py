"""While the tests run, every function of the package checks the shapes and types that its signature states.

Also the real things that several rooms are tested on: the embedded zoo, and merges of its adapters.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from jaxtyping import install_import_hook

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# nothing of the package may be imported before this, so fixtures import it late
install_import_hook("unmerge", "beartype.beartype")


@pytest.fixture(scope="session")
def zoo() -> Path:
    """The embedded zoo: ``zoo-base``, ``known``, ``unknown``; real PEFT adapters to a real model."""
    from unmerge.zoo import embedded_zoo

    return embedded_zoo()


@pytest.fixture(scope="session")
def wide_base(zoo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The zoo's base in float32, moved off bfloat16's grid, so that a merge in bfloat16 rounds every weight."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = tmp_path_factory.mktemp("wide") / "zoo-base"
    model = AutoModelForCausalLM.from_pretrained(zoo / "zoo-base", dtype=torch.float32)
    torch.manual_seed(0)
    for parameter in model.parameters():
        parameter.data *= 1 + 2e-3 * torch.rand_like(parameter)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(zoo / "zoo-base").save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def merged(zoo: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Merge known adapters of the zoo with mergekit; equal merges are made once.

    ``merged({"pirate": 0.5}, "ties", parameters={"density": 0.5})``
    """
    from unmerge.recipes import merge

    made: dict[str, Path] = {}

    def make(
        weights: dict[str, float], method: str = "task_arithmetic", base: Path | None = None, dtype: str = "bfloat16", seed: int = 0, **more: Any
    ) -> Path:
        configuration = {
            "merge_method": method,
            "base_model": str(base or zoo / "zoo-base"),
            "dtype": dtype,
            "models": [{"model": str(zoo / "known" / name), "parameters": {"weight": weight}} for name, weight in weights.items()],
            **more,
        }
        key = json.dumps([configuration, seed])
        if key not in made:
            folder = tmp_path_factory.mktemp("merged")
            (folder / "merge.yml").write_text(yaml.safe_dump(configuration))
            merge(folder / "merge.yml", folder / "target", seed)
            made[key] = folder / "target"
        return made[key]

    return make
