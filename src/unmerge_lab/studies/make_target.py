"""Making a target on disk: with mergekit, with PEFT's ``add_weighted_adapter``, or with mergekit-extract-lora."""

from __future__ import annotations

import shutil
import tempfile
import warnings
from pathlib import Path
from typing import Any

import yaml

from unmerge.checkpoints import Checkpoint
from unmerge.checkpoints.write import write_tensors
from unmerge.core.errors import need
from unmerge.core.quiet import quiet
from unmerge.core.records import write_json, write_text
from unmerge.core.staging import staged
from unmerge.evaluation.models import load_model
from unmerge.recipes.merge import merge
from unmerge_lab.studies.design import Zoo
from unmerge_lab.studies.targets import Target

_SAFETENSORS = {"float32": "F32", "bfloat16": "BF16"}


def base_in(base: Path, dtype: str, out: Path) -> Path:
    """The base in a dtype: itself, or a copy made in ``out`` once.

    mergekit merges an adapter into the base in the checkpoint's own dtype before it takes the difference: a target in float32 from a
    base in bfloat16 would hold that rounding.
    """
    checkpoint = Checkpoint.open(base)
    kept = {tensor: checkpoint.files.dtype(tensor) for tensor in checkpoint.files.shapes}
    wanted = {tensor: _SAFETENSORS[dtype] if checkpoint.files.is_weight(tensor) else own for tensor, own in kept.items()}
    if kept == wanted:
        return base
    copy = out / f"{base.name}-{dtype}"
    if not copy.exists():
        with staged(copy, [checkpoint.source().sha256, dtype]) as stage:
            for file in base.iterdir():
                if file.is_file() and not file.name.startswith("model.safetensors") and file.suffix != ".safetensors":
                    shutil.copy(file, stage.folder)
            write_json(stage.folder / "config.json", {**checkpoint.config, "dtype": dtype})
            layout = {tensor: (wanted[tensor], shape) for tensor, shape in checkpoint.files.shapes.items()}
            write_tensors(stage.folder / "model.safetensors", layout, (checkpoint.files.read(tensor) for tensor in layout))
    return copy


def make_target(target: Target, zoo: Zoo, base: Path, out: Path) -> None:
    """Make a target.

    Args:
        target: what to make.
        zoo: where its components are.
        base: the base in the target's dtype.
        out: the folder to make.
    """
    if not target.is_adapter:
        merge(_recipe(target, target.merge, zoo, base, out), out, target.seed)
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".", dir=out.parent) as scratch:
        made = Path(scratch) / "extracted"
        if target.merge == "extract":
            assert target.rank is not None
            merged = Path(scratch) / "merged"
            merge(_recipe(target, "task_arithmetic", zoo, base, merged), merged, target.seed)
            _extract(merged, base, made, target.rank)
        else:
            made = _combine(target, zoo, base, Path(scratch))
        made.rename(out)


def _recipe(target: Target, method: str, zoo: Zoo, base: Path, out: Path) -> Path:
    """The mergekit configuration, beside the folder that it makes."""
    configuration: dict[str, Any] = {
        "merge_method": method,
        "base_model": str(base.resolve()),
        "dtype": target.dtype,
        "models": [{"model": str(zoo.adapter(name).resolve()), "parameters": {"weight": weight}} for name, weight in target.weights.items()],
    }
    if target.density is not None:
        configuration["parameters"] = {"density": target.density}
    file = out.with_name(f"{out.name}.yml")
    write_text(file, yaml.safe_dump(configuration, sort_keys=False))
    return file


def _combine(target: Target, zoo: Zoo, base: Path, scratch: Path) -> Path:
    """PEFT's weighted sum of adapters: ``cat`` puts their factors side by side, ``svd`` cuts the sum of their products to a rank."""
    peft = need("peft", "train")
    model, _ = load_model(base)
    names = list(target.weights)
    settings = {"svd_rank": target.rank} if target.merge == "svd" else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # what PEFT and transformers will rename is between them
        combined = peft.PeftModel.from_pretrained(model, str(zoo.adapter(names[0])), adapter_name=names[0])
        for name in names[1:]:
            combined.load_adapter(str(zoo.adapter(name)), adapter_name=name)
        combined.add_weighted_adapter(names, list(target.weights.values()), "combined", combination_type=target.merge, **settings)
        combined.save_pretrained(str(scratch), selected_adapters=["combined"], save_embedding_layers=False)
    return scratch / "combined"


def _extract(merged: Path, base: Path, out: Path, rank: int) -> None:
    """mergekit-extract-lora, its command in this process."""
    command = need("mergekit.scripts.extract_lora", "merge").main
    arguments = {"--model": merged, "--base-model": base.resolve(), "--out-path": out, "--max-rank": rank}
    with quiet():
        command.main([part for option, value in arguments.items() for part in (option, str(value))] + ["--quiet"], standalone_mode=False)
