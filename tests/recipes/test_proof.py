"""What a recipe makes, beside the target, weight by weight."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from unmerge.checkpoints import Checkpoint
from unmerge.recipes.proof import compare

EMBEDDING, CHANGED = "model.embed_tokens.weight", "model.layers.1.self_attn.q_proj.weight"


def test_added_rows_are_no_part_of_the_comparison(zoo: Path, merged: Callable[..., Path], tmp_path: Path) -> None:
    """Of a vocabulary that grew, the rows that both have are compared: the recipe makes no others."""
    made = merged({"pirate": 0.5})
    target = tmp_path / "target"
    shutil.copytree(made, target)
    tensors = load_file(target / "model.safetensors")
    rows = len(tensors[EMBEDDING])
    tensors[EMBEDDING] = torch.cat([tensors[EMBEDDING], torch.ones(3, tensors[EMBEDDING].shape[1], dtype=torch.bfloat16)])
    tensors[EMBEDDING][5, 7] += 1.0
    tensors[CHANGED][0, 0] += 1.0
    save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
    (target / "config.json").write_text(json.dumps({**json.loads((target / "config.json").read_text()), "vocab_size": rows + 3}))
    proof = compare(Checkpoint.open(made), Checkpoint.open(target), Checkpoint.open(zoo / "zoo-base"))
    assert (proof.by_kind[EMBEDDING].changed, proof.by_kind[EMBEDDING].identical) == (1, 0)
    kind = proof.by_kind["self_attn.q_proj.weight"]
    assert kind.changed - kind.identical == 1
    assert proof.largest_difference == pytest.approx(1.0, abs=0.01)
    before, after = load_file(zoo / "zoo-base" / "model.safetensors"), load_file(made / "model.safetensors")
    moved = sum(int((before[name] != after[name]).sum()) for name in before)
    assert sum(other.changed for other in proof.by_kind.values()) in (moved + 1, moved + 2)  # the two that were moved may have moved before
