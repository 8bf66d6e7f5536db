"""Files of weights in other formats are named by their content, whatever they are called; other files are not taken for weights."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from unmerge.checkpoints import Adapter, Checkpoint
from unmerge.checkpoints.contents import Contents
from unmerge.checkpoints.formats import format_of
from unmerge.checkpoints.pickles import holds_weights
from unmerge.core.errors import BadInput

Q = "model.layers.0.self_attn.q_proj"


def saved(*names: str) -> Callable[[Path], None]:
    return lambda file: save_file({name: torch.ones(2, 2) for name in names}, file)


def gguf(*texts: bytes) -> Callable[[Path], None]:
    """The beginning of a GGUF file: magic, version, counts, then keys and values, each with its length."""
    content = b"GGUF" + struct.pack("<IQQ", 3, 0, len(texts)) + b"".join(struct.pack("<Q", len(text)) + text for text in texts)
    return lambda file: file.write_bytes(content) and None


FORMATS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "gguf": (gguf(b"general.architecture"), "a GGUF file of llama.cpp"),
    "gguf adapter": (gguf(b"general.type", b"adapter.type"), "a GGUF adapter of llama.cpp"),
    "kohya": (saved(f"lora_te_{Q}.lora_down.weight", f"lora_te_{Q}.lora_up.weight"), "a LoRA in kohya's form (lora_down, lora_up, alpha)"),
    "kohya of an image model": (saved("lora_unet_a.lora_down.weight", "lora_unet_a.lora_up.weight"), "a LoRA of an image model (diffusers, kohya)"),
    "diffusers": (
        saved("transformer.transformer_blocks.0.attn.to_q.lora_A.weight", "transformer.transformer_blocks.0.attn.to_q.lora_B.weight"),
        "a LoRA of an image model (diffusers, kohya)",
    ),
    "lycoris": (saved(f"lycoris_{Q}.hada_w1_a", f"lycoris_{Q}.alpha"), "a LyCORIS adapter (LoHa)"),
    "mlx": (saved(f"{Q}.lora_a", f"{Q}.lora_b"), "an MLX adapter (lora_a, lora_b)"),
    "torchtune": (saved("layers.0.attn.q_proj.lora_a.weight", "layers.0.attn.q_proj.lora_b.weight"), "a torchtune adapter in its own names "),
    "peft of gpt-2": (saved("transformer.h.0.c_attn.lora_A.weight", "transformer.h.0.c_attn.lora_B.weight"), "a LoRA in PEFT's names, by itself"),
    "a checkpoint's": (saved(f"{Q}.weight"), "weights in a safetensors file by itself"),
    "hdf5": (lambda file: file.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(8)), "an HDF5 file"),
    "numpy": (lambda file: np.savez(file.open("wb"), a=np.ones(2)), "a NumPy archive"),
}


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_is_known_by_its_content(name: str, tmp_path: Path) -> None:
    write, what = FORMATS[name]
    write(tmp_path / "a.file")
    found = format_of(tmp_path / "a.file")
    assert found is not None
    assert found.what.startswith(what)


@pytest.mark.parametrize("content", [b"", b"# notes", b'{"a": 1}', b"PK", b"\x10\x00\x00\x00\x00\x00\x00\x00{no json of it", bytes(100)])
def test_other_files_have_no_format(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "notes").write_bytes(content)
    assert format_of(tmp_path / "notes") is None
    assert format_of(tmp_path) is None


def test_pickles_of_a_trainer_are_told_from_weights(tmp_path: Path) -> None:
    """By what they name, without loading them."""
    model = torch.nn.Sequential(torch.nn.Linear(2, 2))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    torch.save(model.state_dict(), tmp_path / "weights.bin")
    torch.save(model.state_dict(), tmp_path / "old.bin", _use_new_zipfile_serialization=False)
    torch.save(optimizer.state_dict(), tmp_path / "optimizer.pt")
    torch.save(torch.optim.lr_scheduler.LinearLR(optimizer).state_dict(), tmp_path / "scheduler.pt")
    torch.save({"python": (3, (1, 2), None), "cpu": torch.get_rng_state()}, tmp_path / "rng_state.pth")
    torch.save(transformers.TrainingArguments(output_dir=str(tmp_path / "out")), tmp_path / "training_args.bin")
    (tmp_path / "cut.bin").write_bytes(b"PK")
    (tmp_path / "other.bin").write_bytes(bytes(range(256)))
    assert {path.name for path in tmp_path.iterdir() if holds_weights(path)} == {"weights.bin", "old.bin"}


def refusal(open_it: Callable[[], object]) -> str:
    with pytest.raises(BadInput) as caught:
        open_it()
    return str(caught.value)


def test_a_folder_of_another_format(make_checkpoint: Any, make_adapter: Any) -> None:
    model = make_checkpoint("model", {"a.weight": torch.ones(2, 2)})
    (model / "model.safetensors").unlink()
    gguf(b"general.architecture")(model / "merged.gguf")
    assert refusal(lambda: Checkpoint.open(model)) == (
        f"{model / 'merged.gguf'}: expected weights in model.safetensors, found a GGUF file of llama.cpp; "
        "give the safetensors checkpoint that it was converted from"
    )


def mlx(folder: Path, **settings: object) -> Path:
    """An adapter as mlx-lm writes it."""
    folder.mkdir()
    torch.manual_seed(0)
    save_file({f"{Q}.lora_a": torch.randn(6, 2), f"{Q}.lora_b": torch.randn(2, 4)}, folder / "adapters.safetensors")
    whole = {"fine_tune_type": "lora", "num_layers": 1, "model": "a/base", "lora_parameters": {"rank": 2, "scale": 20.0, "dropout": 0.0}}
    (folder / "adapter_config.json").write_text(json.dumps(whole | settings))
    return folder


def test_an_mlx_adapter_is_read(tmp_path: Path) -> None:
    """s (a b)^T."""
    folder = mlx(tmp_path / "mlx")
    tensors = load_file(folder / "adapters.safetensors")
    adapter = Adapter.open(folder)
    assert adapter.shapes == {f"{Q}.weight": (4, 6)}
    assert adapter.config.base_name == "a/base"
    torch.testing.assert_close(adapter.delta(f"{Q}.weight").dense(), 20.0 * (tensors[f"{Q}.lora_a"] @ tensors[f"{Q}.lora_b"]).T)
    text = refusal(lambda: Adapter.open(mlx(tmp_path / "dora", fine_tune_type="dora")))
    assert "expected an MLX adapter of type lora with a rank and a scale, found dora of rank 2 and scale 20.0; fuse it" in text
    assert "found 'scale'" in refusal(lambda: Adapter.open(mlx(tmp_path / "bare", lora_parameters={"rank": 2})))
    assert "expected rank 3" in refusal(lambda: Adapter.open(mlx(tmp_path / "other", lora_parameters={"rank": 3, "scale": 1.0})))


def test_what_is_said_of_a_foreign_lora_makes_an_adapter_of_it(make_adapter: Any) -> None:
    """The law that the hint states, against the format's own: alpha / rank x up down for kohya."""
    torch.manual_seed(0)
    alpha, down, up = 3.0, torch.randn(2, 6), torch.randn(4, 2)
    kohya = make_adapter("kohya", {f"{Q}.lora_A.weight": down, f"{Q}.lora_B.weight": up}, lora_alpha=alpha)
    torch.testing.assert_close(Adapter.open(kohya).delta(f"{Q}.weight").dense(), alpha / 2 * up @ down)


def test_a_trainers_files_are_not_the_weights(make_checkpoint: Any) -> None:
    """training_args.bin beside a configuration alone: what is missing are weights, not their format."""
    folder = make_checkpoint("model", {"a.weight": torch.ones(2, 2)})
    (folder / "model.safetensors").unlink()
    torch.save(transformers.TrainingArguments(output_dir=str(folder / "out")), folder / "training_args.bin")
    assert "found neither file" in refusal(lambda: Checkpoint.open(folder))


@pytest.mark.parametrize("form", ["pipeline", "model"])
def test_a_model_of_diffusers(form: str, tmp_path: Path) -> None:
    settings = {"_class_name": "FluxTransformer2DModel", "_diffusers_version": "0.42.1"}
    (tmp_path / ("model_index.json" if form == "pipeline" else "config.json")).write_text(json.dumps(settings))
    assert str(Contents.of(tmp_path).nothing()).endswith("found a model of diffusers; give adapters and checkpoints of a language model")


def test_weights_that_zero_3_saved_empty(make_checkpoint: Any, make_adapter: Any) -> None:
    hint = "gather its shards (DeepSpeed ZeRO-3, FSDP) and save it again"
    model = make_checkpoint("model", {"a.weight": torch.ones(2, 2), "b.weight": torch.zeros(0)})
    assert refusal(lambda: Checkpoint.open(model)) == f"{model}, tensor b.weight: expected whole weights, found an empty one (shape (0,)); {hint}"
    factors = {"model.a.lora_A.weight": torch.ones(2, 6), "model.a.lora_B.weight": torch.ones(4, 2)}
    adapter = make_adapter("adapter", {**factors, "lm_head.weight": torch.zeros(0)}, modules_to_save=["lm_head"])
    text = refusal(lambda: Adapter.open(adapter))
    assert text.endswith(f"found shape (0,); {hint}")
    assert "lm_head.weight" in text


def test_a_model_saved_before_its_adapter_was_merged(make_checkpoint: Any) -> None:
    tensors = {f"{Q}.base_layer.weight": torch.ones(4, 6), f"{Q}.lora_A.default.weight": torch.ones(2, 6), "b.weight": torch.ones(2)}
    text = refusal(lambda: Checkpoint.open(make_checkpoint("dump", tensors)))
    assert (
        "found a model that was saved before its adapter was merged (base_layer, lora_A, lora_B); merge it (merge_and_unload) and save it, or put"
        in text
    )
