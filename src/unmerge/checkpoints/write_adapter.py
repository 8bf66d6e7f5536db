"""Writing low-rank changes as an ordinary PEFT LoRA folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from unmerge.checkpoints.adapter import WEIGHTS
from unmerge.checkpoints.adapter_config import CONFIG
from unmerge.checkpoints.write import save_tensors
from unmerge.core.records import write_json
from unmerge.vectors import LowRank


def write_adapter(folder: Path, deltas: Mapping[str, LowRank], base_name: str) -> None:
    """Write a LoRA adapter whose dW is exactly the given products.

    Args:
        folder: to make.
        deltas: by tensor name (``....q_proj.weight``); ranks may differ.
        base_name: recorded as the base.
    """
    folder.mkdir(parents=True, exist_ok=True)
    ranks = {tensor.removesuffix(".weight"): delta.rank for tensor, delta in deltas.items()}
    usual = max(set(ranks.values()), key=list(ranks.values()).count)
    others = {module: rank for module, rank in ranks.items() if rank != usual}
    tensors = {}
    for tensor, delta in deltas.items():
        module = "base_model.model." + tensor.removesuffix(".weight")
        tensors[f"{module}.lora_A.weight"] = delta.a.contiguous()
        tensors[f"{module}.lora_B.weight"] = delta.b.contiguous()
    save_tensors(folder / f"{WEIGHTS}.safetensors", tensors)
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_name,
        "inference_mode": True,
        # scale 1 everywhere: alpha equals the rank
        "r": usual,
        "lora_alpha": usual,
        "rank_pattern": others,
        "alpha_pattern": others,
        "target_modules": sorted(ranks),
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
    }
    write_json(folder / CONFIG, config)
