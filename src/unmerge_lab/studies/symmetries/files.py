"""A model's weights read from a checkpoint, and written again as one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import torch

from unmerge.checkpoints import Checkpoint
from unmerge.checkpoints.write import save_tensors
from unmerge.core.records import write_json
from unmerge.vectors import TaskVector
from unmerge_lab.studies.symmetries.operations import HEAD, Model


def read_model(checkpoint: Checkpoint) -> Model:
    """All weights, in float32."""
    config = checkpoint.config
    heads = int(config["num_attention_heads"])
    weights = {name: checkpoint.read(name).float() for name in checkpoint.shapes}
    return Model(weights, int(config["num_hidden_layers"]), heads, int(config.get("num_key_value_heads", heads)))


def plus(model: Model, parts: Iterable[tuple[TaskVector, float]]) -> Model:
    """The model with task vectors added to its weights."""
    weights = dict(model.weights)
    for vector, coefficient in parts:
        for tensor in vector.shapes:
            weights[tensor] = weights[tensor] + coefficient * vector.delta(tensor).dense()
    return replace(model, weights=weights)


def write_model(model: Model, like: Checkpoint, out: Path, dtype: torch.dtype) -> Path:
    """Write a checkpoint with the configuration of another one; a head that got weights of its own is no longer tied."""
    out.mkdir(parents=True)
    more = {"tie_word_embeddings": False} if HEAD in model.weights else {}
    write_json(out / "config.json", {**like.config, "num_hidden_layers": model.layers, "dtype": str(dtype).removeprefix("torch."), **more})
    save_tensors(out / "model.safetensors", {name: values.to(dtype).contiguous() for name, values in model.weights.items()})
    return out
