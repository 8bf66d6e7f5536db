"""Every verb on every kind of checkpoint that is read: the right value, or one line that says why not; never a traceback.

What an audit does includes what ``recover`` does, which takes seconds: each of the two is run on the kinds that it could stumble over.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import Result
from safetensors.torch import load_file, save_file
from torch import Tensor

Run = Callable[..., Result]
Tensors = dict[str, Tensor]
Model = tuple[Tensors, dict[str, Any]]

WIDTH, INNER, LAYERS, TOKENS, RANK = 64, 96, 1, 80, 2
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
COEFFICIENTS = {"a0": 1.0, "a1": 0.5}
SHAPES = {
    **{f"self_attn.{name}_proj": (WIDTH, WIDTH) for name in "qkvo"},
    **{f"mlp.{name}_proj": (INNER, WIDTH) for name in ("gate", "up")},
    "mlp.down_proj": (WIDTH, INNER),
}
CONFIG = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": WIDTH,
    "intermediate_size": INNER,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "vocab_size": TOKENS,
    "tie_word_embeddings": False,
}


def base() -> Tensors:
    torch.manual_seed(0)
    made = {name: 0.02 * torch.randn(TOKENS, WIDTH) for name in (EMBEDDING, HEAD)}
    for layer in range(LAYERS):
        made |= {f"model.layers.{layer}.{module}.weight": 0.03 * torch.randn(shape) for module, shape in SHAPES.items()}
        made |= {f"model.layers.{layer}.{norm}_layernorm.weight": torch.ones(WIDTH) for norm in ("input", "post_attention")}
    return made | {"model.norm.weight": torch.ones(WIDTH)}


def factors(seed: int) -> Tensors:
    torch.manual_seed(100 + seed)
    made: Tensors = {}
    for layer in range(LAYERS):
        for module, (out, into) in SHAPES.items():
            where = f"base_model.model.model.layers.{layer}.{module}"
            made |= {f"{where}.lora_A.weight": 0.05 * torch.randn(RANK, into), f"{where}.lora_B.weight": 0.05 * torch.randn(out, RANK)}
    return made


def products(adapter: Tensors) -> Tensors:
    return {
        name.removeprefix("base_model.model.").replace(".lora_A", ""): adapter[name.replace("lora_A", "lora_B")] @ values
        for name, values in adapter.items()
        if ".lora_A" in name
    }


def put_model(folder: Path, model: Model, shards: int = 1) -> None:
    tensors, settings = model
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(settings))
    names = list(tensors)
    files = {
        name: f"model-{place % shards + 1:05d}-of-{shards:05d}.safetensors" if shards > 1 else "model.safetensors" for place, name in enumerate(names)
    }
    for file in set(files.values()):
        save_file({name: tensors[name].contiguous() for name in names if files[name] == file}, folder / file, metadata={"format": "pt"})
    if shards > 1:
        (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": files}))


# each kind: what becomes of (base, target)
def in_dtype(dtype: torch.dtype) -> Callable[[Model, Model], None]:
    def change(base: Model, target: Model) -> None:
        for tensors, _ in (base, target):
            tensors.update({name: values.to(dtype) for name, values in tensors.items()})

    return change


def with_buffers(base: Model, target: Model) -> None:
    """Causal masks of booleans and bytes, positions of 32 and 64 bits; one of floats that only the target has."""
    mask = torch.tril(torch.ones(8, 8)).bool()
    for tensors, _ in (base, target):
        tensors |= {"model.layers.0.attn.bias": mask.view(1, 1, 8, 8).clone(), "model.layers.0.attn.mask": mask.to(torch.uint8)}
        tensors |= {"model.position_ids": torch.arange(16)[None], "model.positions": torch.arange(16, dtype=torch.int32)[None]}
    target[0]["model.layers.0.attn.masked_bias"] = torch.tensor(-1e4)


def with_rows(more: int) -> Callable[[Model, Model], None]:
    def change(base: Model, target: Model) -> None:
        tensors, settings = target
        for name in (EMBEDDING, HEAD):
            tensors[name] = torch.cat([tensors[name], torch.ones(max(more, 0), WIDTH)])[: TOKENS + more].clone()
        settings["vocab_size"] = TOKENS + more

    return change


def tied(base: Model, target: Model) -> None:
    for tensors, settings in (base, target):
        del tensors[HEAD]
        settings["tie_word_embeddings"] = True


def tied_in_two_copies(base: Model, target: Model) -> None:
    for tensors, settings in (base, target):
        tensors[HEAD] = tensors[EMBEDDING].clone()
        settings["tie_word_embeddings"] = True


def untied_since(base: Model, target: Model) -> None:
    """The base's head is its embedding, which is stored once; the target stores both."""
    tied_in_two_copies(base, target)
    del base[0][HEAD]
    target[1]["tie_word_embeddings"] = False


KINDS: dict[str, Callable[[Model, Model], None]] = {
    "float32": lambda *_: None,
    "bfloat16": in_dtype(torch.bfloat16),
    "float16": in_dtype(torch.float16),
    "float64": in_dtype(torch.float64),
    "sharded": lambda *_: None,
    "integer buffers": with_buffers,
    "added rows": with_rows(3),
    "trimmed rows": with_rows(-5),
    "tied": tied,
    "tied in two copies": tied_in_two_copies,
    "untied since": untied_since,
}


@pytest.fixture(scope="module")
def atoms() -> dict[str, Tensors]:
    return {f"a{seed}": factors(seed) for seed in range(4)}


@pytest.fixture(scope="module")
def rooms(atoms: dict[str, Tensors], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """By kind, a folder with ``base``, ``target`` (a0 + .5 a1) and ``known`` (a0 to a3); no model has a tokenizer. Each is made once."""
    made: dict[str, Path] = {}

    def room(kind: str) -> Path:
        if kind not in made:
            folder = made[kind] = tmp_path_factory.mktemp("kind")
            tensors = base()
            merged = dict(tensors)
            for name, coefficient in COEFFICIENTS.items():
                merged |= {tensor: merged[tensor] + coefficient * change for tensor, change in products(atoms[name]).items()}
            models: list[Model] = [(tensors, dict(CONFIG)), (merged, dict(CONFIG))]
            KINDS[kind](*models)
            for name, model in zip(("base", "target"), models, strict=True):
                put_model(folder / name, model, shards=3 if kind == "sharded" else 1)
            for name, adapter in atoms.items():
                (folder / "known" / name).mkdir(parents=True)
                settings = {"peft_type": "LORA", "r": RANK, "lora_alpha": RANK, "base_model_name_or_path": "base", "target_modules": list(SHAPES)}
                (folder / "known" / name / "adapter_config.json").write_text(json.dumps(settings))
                save_file(adapter, folder / "known" / name / "adapter_model.safetensors")
        return made[kind]

    return room


@pytest.fixture(params=list(KINDS))
def room(request: pytest.FixtureRequest, rooms: Callable[[str], Path]) -> Path:
    return rooms(request.param)


def done(run: Run, *arguments: str | Path, status: int = 0) -> Result:
    """Run a command; no traceback on either stream, whatever it says."""
    result = run(*arguments)
    assert result.exit_code == status, (result.output, result.exception)
    assert "Traceback" not in result.output
    return result


def on(room: Path) -> list[str | Path]:
    return [room / "target", "--base", room / "base", "--dictionary", room / "known"]


def tensors(folder: Path) -> Tensors:
    return {name: values for file in folder.glob("*.safetensors") for name, values in load_file(file).items()}


def test_decompose(run: Run, room: Path, tmp_path: Path) -> None:
    done(run, "decompose", *on(room), "--json", tmp_path / "found.json")
    found = json.loads((tmp_path / "found.json").read_text())
    assert {one["name"]: one["coefficient"] for one in found["components"]} == pytest.approx(COEFFICIENTS, abs=0.01)


def test_ablate(run: Run, room: Path, atoms: dict[str, Tensors], tmp_path: Path) -> None:
    """Every tensor: the product taken out, rounded once; or the target's own bits."""
    done(run, "ablate", *on(room), "--remove", "a0=0.75", "--out", tmp_path / "out")
    before, after, change = tensors(room / "target"), tensors(tmp_path / "out"), products(atoms["a0"])
    assert before.keys() == after.keys()
    for name, values in before.items():
        assert after[name].dtype == values.dtype
        if name in change:
            wide = values.double() - 0.75 * change[name].double()
            step = torch.finfo(values.dtype).eps / 2 * wide.abs() + 1e-7
            assert ((after[name].double() - wide).abs() <= step).all(), name
        else:
            assert torch.equal(after[name], values), name


@pytest.mark.parametrize("kind", ["integer buffers", "added rows", "tied in two copies", "untied since"])
def test_audit(kind: str, run: Run, rooms: Callable[[str], Path], tmp_path: Path) -> None:
    """With the recipe, which is run again by mergekit."""
    done(run, "audit", *on(rooms(kind)), "--out", tmp_path / "out")
    found = json.loads((tmp_path / "out" / "audit.json").read_text())
    assert {one["name"]: one["coefficient"] for one in found["decomposition"]["components"]} == pytest.approx(COEFFICIENTS, abs=0.01)
    assert weights(found["recipe"]) == pytest.approx(COEFFICIENTS, abs=0.01)


@pytest.mark.parametrize("kind", ["float64", "trimmed rows"])
def test_recover(kind: str, run: Run, rooms: Callable[[str], Path], tmp_path: Path) -> None:
    done(run, "recover", *on(rooms(kind)), "--out", tmp_path / "recipe.yml")
    assert weights(json.loads((tmp_path / "recipe.json").read_text())) == pytest.approx(COEFFICIENTS, abs=0.01)


def weights(recipe: dict[str, Any]) -> dict[str, float]:
    return {name: settings["weight"] for name, settings in recipe["parameters"]["models"].items()}


@pytest.mark.parametrize("kind", ["integer buffers", "added rows"])
def test_compress(kind: str, run: Run, rooms: Callable[[str], Path], tmp_path: Path) -> None:
    said = done(run, "compress", *on(rooms(kind)), "--out", tmp_path / "out", "--entries", "500").stdout
    assert "5 task vectors at 500 entries" in said


def test_merge(run: Run, rooms: Callable[[str], Path], tmp_path: Path) -> None:
    """Halfway from a base to a target, both with buffers of integers and without a tokenizer."""
    room = rooms("integer buffers")
    models = [{"model": str(room / name), "parameters": {"weight": 0.5}} for name in ("base", "target")]
    (tmp_path / "merge.yml").write_text(json.dumps({"merge_method": "linear", "dtype": "float32", "models": models}))
    done(run, "merge", tmp_path / "merge.yml", "--out", tmp_path / "out")
    start, end, half = (tensors(folder) for folder in (room / "base", room / "target", tmp_path / "out"))
    assert torch.allclose(half[HEAD], start[HEAD])
    query = "model.layers.0.self_attn.q_proj.weight"
    assert torch.allclose(half[query], (start[query] + end[query]) / 2, atol=1e-6)


def test_verify_needs_a_tokenizer(run: Run, rooms: Callable[[str], Path]) -> None:
    result = done(run, "verify", *on(rooms("float32")), "--tasks", "zoo", "--remove", "a0=1", status=2)
    assert result.stderr.splitlines()[-1].startswith("unmerge: ")
    assert "token" in result.stderr or "task" in result.stderr
