"""Checkpoints that are not what they should be: each gets its one line, which says what was expected, found, where, and what to try."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from unmerge.checkpoints import Checkpoint, Difference
from unmerge.core.errors import BadInput


def refusal(folder: Path) -> str:
    """The text of the refusal to open a checkpoint: a single line, with the place in it."""
    with pytest.raises(BadInput) as caught:
        Checkpoint.open(folder)
    text = str(caught.value)
    assert "\n" not in text
    assert str(folder) in text
    return text.replace(str(folder), "HERE")


@pytest.fixture
def whole(make_checkpoint: Any) -> Path:
    torch.manual_seed(0)
    folder: Path = make_checkpoint("whole", {"model.a.weight": torch.randn(4, 3), "model.b.weight": torch.randn(5)})
    return folder


@pytest.fixture
def shards(lab: Any, bases: dict[str, Path]) -> Path:
    """A sharded checkpoint of transformers' own."""
    folder: Path = lab.place()
    lab.load(bases["qwen"]).save_pretrained(folder, max_shard_size="4KB")
    return folder


def test_no_folder(tmp_path: Path, whole: Path) -> None:
    assert refusal(tmp_path / "none") == "HERE: expected a folder, found no such folder; check the path"
    assert refusal(whole / "model.safetensors") == "HERE: expected a folder, found a file; check the path"
    assert refusal(tmp_path) == "HERE/config.json: expected a model's config.json, found no such file; check the path"


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ('{"a": ', "expected a model's config.json, found broken JSON (Expecting value: line 1 column 7 (char 6)); download or write the file again"),
        ("[1]", "expected a JSON object, found something else; download the file again"),
    ],
)
def test_a_broken_configuration(content: str, text: str, whole: Path) -> None:
    (whole / "config.json").write_text(content)
    assert refusal(whole) == f"HERE/config.json: {text}"


def test_no_weights(whole: Path) -> None:
    (whole / "model.safetensors").unlink()
    text = "expected weights in model.safetensors or model.safetensors.index.json, found neither file"
    assert refusal(whole) == f"HERE: {text}; check the path, or download the weights again"


def test_weights_without_a_tensor(make_checkpoint: Any) -> None:
    assert refusal(make_checkpoint("empty", {})) == "HERE: expected weights, found none; download or write the checkpoint again"


ELSEWHERE = "convert it to safetensors with the library that wrote it"


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "consolidated.00.pth", "last.ckpt"])
def test_a_pickle_is_never_loaded(name: str, whole: Path) -> None:
    weights = load_file(whole / "model.safetensors")
    (whole / "model.safetensors").unlink()
    torch.save(weights, whole / name)
    assert refusal(whole) == (
        f"HERE: expected weights in model.safetensors, found a pickle ({name}), which is never loaded because loading it runs code; "
        f"{'convert it first: AutoModelForCausalLM.from_pretrained(...).save_pretrained(...)' if name == 'pytorch_model.bin' else ELSEWHERE}"
    )


def test_a_pickle_beside_safetensors_does_not_matter(whole: Path) -> None:
    torch.save({}, whole / "pytorch_model.bin")
    assert len(Checkpoint.open(whole).shapes) == 2


def header(content: bytes) -> bytes:
    return struct.pack("<Q", len(content)) + content


OVERLAPPING = {name: {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} for name in "ab"}
DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "cut in its first bytes": lambda whole: whole[:4],
    "cut in its header": lambda whole: whole[:40],
    "cut in its data": lambda whole: whole[:-1],
    "too long": lambda whole: whole + b"0",
    "a header that is no JSON": lambda whole: header(b"{no json}") + whole[-64:],
    "a header that is endless": lambda whole: struct.pack("<Q", 1 << 62) + whole[8:],
    "tensors that overlap": lambda _: header(json.dumps(OVERLAPPING).encode()) + bytes(8),
    "an unknown dtype": lambda _: header(b'{"a":{"dtype":"F33","shape":[2],"data_offsets":[0,8]}}') + bytes(8),
    "a pickle by another name": lambda whole: b"\x80\x04" + whole,
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_file(name: str, whole: Path) -> None:
    file = whole / "model.safetensors"
    file.write_bytes(DAMAGES[name](file.read_bytes()))
    text = refusal(whole)
    assert text.startswith("HERE/model.safetensors: expected a whole safetensors file, found a truncated or corrupt one (")
    assert text.endswith("); download or write it again")


def test_a_git_lfs_pointer(whole: Path) -> None:
    (whole / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 988097824\n")
    text = "expected a whole safetensors file, found a git-lfs pointer in its place; fetch it with: git lfs pull"
    assert refusal(whole) == f"HERE/model.safetensors: {text}"


def test_a_folder_in_place_of_the_file(whole: Path) -> None:
    (whole / "model.safetensors").unlink()
    (whole / "model.safetensors").mkdir()
    assert refusal(whole) == "HERE/model.safetensors: expected a safetensors file, found no such file; download the missing file"


def test_a_missing_shard(shards: Path) -> None:
    file = sorted(shards.glob("*.safetensors"))[1]
    file.unlink()
    assert refusal(shards) == f"HERE/{file.name}: expected a safetensors file, found no such file; download the missing file"


def test_a_cut_shard(shards: Path) -> None:
    file = max(shards.glob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:-100])
    assert refusal(shards).startswith(f"HERE/{file.name}: expected a whole safetensors file, found a truncated or corrupt one (")


def test_a_shard_without_what_the_index_lists(shards: Path) -> None:
    file = min(shards.glob("*.safetensors"))
    tensors = load_file(file)
    lost = min(tensors)
    save_file({name: values for name, values in tensors.items() if name != lost} | {"other": torch.ones(1)}, file)
    text = (
        f"HERE/{file.name}, tensor {lost}: expected the tensors that the index lists, found the tensor is not in its shard; download the shard again"
    )
    assert refusal(shards) == text


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("", "expected a safetensors index, found broken JSON (Expecting value: line 1 column 1 (char 0)); download or write the file again"),
        ("{}", "expected a safetensors index with a weight_map, found none; download the file again"),
        ("[]", "expected a safetensors index with a weight_map, found none; download the file again"),
        ('{"weight_map": {"a": 1}}', "expected a safetensors index with a weight_map, found none; download the file again"),
    ],
)
def test_a_broken_index(content: str, text: str, shards: Path) -> None:
    (shards / "model.safetensors.index.json").write_text(content)
    assert refusal(shards) == f"HERE/model.safetensors.index.json: {text}"


def test_buffers_of_integers_are_no_quantisation(make_checkpoint: Any) -> None:
    """Masks and positions, as older checkpoints of GPT-2 and BERT hold them."""
    buffers = {"h.attn.bias": torch.ones(1, 1, 4, 4, dtype=torch.uint8), "position_ids": torch.arange(4)[None], "steps": torch.tensor(3)}
    assert len(Checkpoint.open(make_checkpoint("old", {"a.weight": torch.ones(2, 2)} | buffers)).shapes) == 4


@pytest.mark.parametrize("side", ["tuned", "base"])
@pytest.mark.parametrize("value", [float("nan"), -float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.float8_e5m2])
def test_weights_that_are_not_finite(value: float, dtype: torch.dtype, side: str, make_checkpoint: Any) -> None:
    clean = {"model.a.weight": torch.ones(4, 3).to(dtype), "model.b.weight": torch.ones(5).to(dtype)}
    dirty = torch.ones(5)
    dirty[2] = value
    folders = {"tuned": make_checkpoint("tuned", clean), "base": make_checkpoint("base", clean)}
    save_file(clean | {"model.b.weight": dirty.to(dtype)}, folders[side] / "model.safetensors")
    vector = Difference("t", Checkpoint.open(folders["tuned"]), Checkpoint.open(folders["base"]))
    assert not vector.delta("model.a.weight").values.any()
    with pytest.raises(BadInput) as caught:
        vector.delta("model.b.weight").dense()
    where = f"{folders[side]}/model.safetensors, tensor model.b.weight"
    assert str(caught.value) == f"{where}: expected finite weights, found NaN or infinity; write or download the file again"
