"""Subtraction, weight by weight: against its formula, in the target's own dtype and shards, and against what PEFT does on loading."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel

from unmerge.checkpoints import Adapter, Checkpoint
from unmerge.core.errors import BadInput, BadOutput
from unmerge.core.records import sha256
from unmerge.decomposition import decompose, open_base, open_dictionary, open_vector
from unmerge.decomposition.ablation_record import AblationRecord
from unmerge.decomposition.dictionary import Vector
from unmerge.verification import ablate, coefficients
from unmerge.verification.ablate import parse_removals

Merged = Callable[..., Path]
WEIGHTS = (0.9, 0.5, 0.7)


@pytest.fixture(scope="module")
def weights(zoo: Path) -> dict[str, float]:
    """Three known adapters of the zoo and their weights."""
    names = sorted(path.name for path in (zoo / "known").iterdir())[:3]
    return dict(zip(names, WEIGHTS, strict=True))


def tensors(folder: Path) -> dict[str, Tensor]:
    return {name: values for file in sorted(folder.glob("*.safetensors")) for name, values in load_file(file).items()}


def product(adapter: Path) -> dict[str, Tensor]:
    """The dense change of a LoRA whose alpha is its rank, as in the zoo."""
    factors = load_file(adapter / "adapter_model.safetensors")
    return {
        key.removeprefix("base_model.model.").replace(".lora_B", ""): b.double() @ factors[key.replace("lora_B", "lora_A")].double()
        for key, b in factors.items()
        if ".lora_B." in key
    }


def opened(zoo: Path, target: Path, *names: str) -> tuple[Vector, list[Vector]]:
    base = open_base(zoo / "zoo-base")
    return open_vector(target, base), [open_vector(zoo / "known" / name, base) for name in names]


def sharded(source: Path, out: Path, dtype: torch.dtype | None = None) -> Path:
    """The checkpoint in shards of at most 300 kB, its tokenizer beside it."""
    model = AutoModelForCausalLM.from_pretrained(source, dtype=dtype or "auto")
    model.save_pretrained(out, max_shard_size="300KB")
    AutoTokenizer.from_pretrained(source).save_pretrained(out)
    assert len(list(out.glob("*.safetensors"))) > 2
    return out


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("shards", [False, True], ids=["one file", "shards"])
def test_checkpoint(shards: bool, dtype: torch.dtype, zoo: Path, merged: Merged, weights: dict[str, float], tmp_path: Path) -> None:
    """W - c dW rounded once, in the target's dtype, shards and company; what is not touched keeps its bytes."""
    one, two, _ = weights
    target = sharded(merged(weights), tmp_path / "target", dtype)
    if not shards:
        AutoModelForCausalLM.from_pretrained(target, dtype=dtype).save_pretrained(tmp_path / "whole")
        target = tmp_path / "whole"
    vector, atoms = opened(zoo, target, one, two)
    ablate(vector, list(zip(atoms, (0.9, 0.25), strict=True)), tmp_path / "out")
    before, after = tensors(target), tensors(tmp_path / "out")
    changes = [product(zoo / "known" / name) for name in (one, two)]
    assert before.keys() == after.keys()
    for name, values in before.items():
        expected = values.double() - sum(
            (c * change[name] for c, change in zip((0.9, 0.25), changes, strict=True) if name in change), torch.zeros(())
        )
        assert after[name].dtype == values.dtype == dtype
        if name in changes[0]:
            # half a step of the dtype, and what float32 arithmetic adds to it
            step = expected.abs() * torch.finfo(dtype).eps / 2 + 1e-6
            assert ((after[name].double() - expected).abs() <= step).all()
        else:
            assert torch.equal(after[name], values)
    assert not torch.equal(before["model.layers.0.mlp.up_proj.weight"], after["model.layers.0.mlp.up_proj.weight"])
    files = {path.name for path in target.iterdir()}
    assert {path.name for path in (tmp_path / "out").iterdir()} == files | {"ablation.json"}
    for name in files:
        if name.endswith(".safetensors"):
            assert load_file(target / name).keys() == load_file(tmp_path / "out" / name).keys()
        else:
            assert (target / name).read_bytes() == (tmp_path / "out" / name).read_bytes()
    if shards and dtype == torch.bfloat16:
        model = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto")
        assert torch.equal(model.model.layers[0].mlp.up_proj.weight, after["model.layers.0.mlp.up_proj.weight"])


def test_removing_what_was_merged_gives_the_rest(zoo: Path, merged: Merged, weights: dict[str, float], tmp_path: Path) -> None:
    """With the coefficient that is found in it, the target without an adapter is the merge of the others, up to rounding."""
    one, *rest = weights
    base = open_base(zoo / "zoo-base")
    vector, dictionary = open_vector(merged(weights), base), open_dictionary([zoo / "known"], base)
    removed, warnings = coefficients(vector, dictionary, base, {one: None}, "nnls")
    ((atom, coefficient),) = removed
    assert (atom.name, warnings) == (one, [])
    assert coefficient == pytest.approx(weights[one], rel=0.01)
    ablate(vector, removed, tmp_path / "out")
    after = open_vector(tmp_path / "out", base)
    found = {component.name: component.coefficient for component in decompose(after, dictionary, base, "nnls").components}
    assert found == pytest.approx({name: weights[name] for name in rest}, rel=0.01)


def test_record(zoo: Path, merged: Merged, weights: dict[str, float], tmp_path: Path) -> None:
    one = next(iter(weights))
    vector, atoms = opened(zoo, merged(weights), one)
    ablate(vector, [(atoms[0], 0.9)], tmp_path / "out")
    record = AblationRecord.model_validate_json((tmp_path / "out" / "ablation.json").read_text())
    assert record.removed == {one: 0.9}
    assert record.form == "checkpoint"
    assert record.target.sha256["model.safetensors"] == sha256(merged(weights) / "model.safetensors")
    assert record.components[one].sha256["adapter_model.safetensors"] == sha256(zoo / "known" / one / "adapter_model.safetensors")
    assert "torch" in record.environment.versions


def test_the_weights_in_another_format_are_left_behind(zoo: Path, merged: Merged, weights: dict[str, float], tmp_path: Path) -> None:
    """Copied, they would bring the component back; the record names them."""
    one = next(iter(weights))
    target = shutil.copytree(merged(weights), tmp_path / "target")
    others = [
        "consolidated.00.pth",
        "model-q8.gguf",
        "model.safetensors.index.json",
        "other.safetensors",
        "pytorch_model.bin",
        "pytorch_model.bin.index.json",
    ]
    for name in [*others, "chat_template.jinja"]:
        (target / name).write_text("{}")
    vector, (atom,) = opened(zoo, target, one)
    ablate(vector, [(atom, 0.9)], tmp_path / "out")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {path.name for path in merged(weights).iterdir()} | {"ablation.json", "chat_template.jinja"}
    assert AblationRecord.model_validate_json((tmp_path / "out" / "ablation.json").read_text()).left_out == others


def test_interrupted_between_shards(zoo: Path, merged: Merged, weights: dict[str, float], tmp_path: Path) -> None:
    """Ctrl-C after the first shard: it is kept, not written again, and the result is that of an uninterrupted run."""
    one = next(iter(weights))
    target = sharded(merged(weights), tmp_path / "target")
    vector, (atom,) = opened(zoo, target, one)
    out, partial = tmp_path / "out", tmp_path / ".out.partial"

    def interrupted(items: Iterable[str]) -> Iterator[str]:
        for place, item in enumerate(items):
            if place == 1:
                raise KeyboardInterrupt
            yield item

    with pytest.raises(KeyboardInterrupt):
        ablate(vector, [(atom, 0.9)], out, watch=interrupted)
    assert not out.exists()
    (kept,) = partial.glob("*.safetensors")
    inode = kept.stat().st_ino
    ablate(vector, [(atom, 0.9)], out)
    assert (out / kept.name).stat().st_ino == inode
    assert not partial.exists()
    ablate(vector, [(atom, 0.9)], tmp_path / "at once")
    for path in (tmp_path / "at once").glob("*.safetensors"):
        assert path.read_bytes() == (out / path.name).read_bytes()


@pytest.mark.parametrize("change", ["coefficient", "component", "target"])
def test_what_another_subtraction_left_is_not_taken_up(change: str, zoo: Path, merged: Merged, weights: dict[str, float], tmp_path: Path) -> None:
    """The component is changed in place, under its name: its content decides."""
    one, two, _ = weights
    shutil.copytree(zoo / "known" / one, tmp_path / "atom")
    target = sharded(merged(weights), tmp_path / "target")
    base = open_base(zoo / "zoo-base")

    def stop(items: Iterable[str]) -> Iterator[str]:
        yield next(iter(items))
        raise KeyboardInterrupt

    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        ablate(open_vector(target, base), [(open_vector(tmp_path / "atom", base), 0.9)], out, watch=stop)
    if change == "component":
        shutil.copytree(zoo / "known" / two, tmp_path / "atom", dirs_exist_ok=True)
    if change == "target":
        shutil.rmtree(target)
        sharded(merged({one: 1.0}), target)
    coefficient = 0.4 if change == "coefficient" else 0.9
    vector, atom = open_vector(target, base), open_vector(tmp_path / "atom", base)
    ablate(vector, [(atom, coefficient)], out)
    ablate(vector, [(atom, coefficient)], tmp_path / "at once")
    for path in (tmp_path / "at once").glob("*.safetensors"):
        assert path.read_bytes() == (out / path.name).read_bytes()


def zoo_like(zoo: Path, out: Path, rank: int, **settings: Any) -> Path:
    """A fresh LoRA to the zoo's base, all of its factors drawn."""
    torch.manual_seed(rank)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(zoo / "zoo-base", dtype=torch.float32), LoraConfig(r=rank, **settings))
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = 0.05 * torch.randn_like(parameter)
    model.save_pretrained(out)
    return out


def wrapped(base: Path, *adapters: Path) -> dict[str, Tensor]:
    """The weights of a model with adapters merged in by PEFT, in float64."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float64)
    for adapter in adapters:
        model = PeftModel.from_pretrained(model, adapter).merge_and_unload()
    found: dict[str, Tensor] = model.state_dict()
    return found


@pytest.mark.parametrize("with_base", [True, False])
def test_adapter(with_base: bool, zoo: Path, weights: dict[str, float], tmp_path: Path) -> None:
    """target - c x atom as a LoRA: what PEFT loads is the difference. Ranks, alphas and modules may differ."""
    one = next(iter(weights))
    target = zoo_like(
        zoo, tmp_path / "target", 4, lora_alpha=8, target_modules=["q_proj", "down_proj"], rank_pattern={"down_proj": 2}, use_rslora=True
    )
    base = open_base(zoo / "zoo-base") if with_base else None
    ablate(open_vector(target, base), [(open_vector(zoo / "known" / one, base), 0.75)], tmp_path / "out")
    before, with_target, with_out = wrapped(zoo / "zoo-base"), wrapped(zoo / "zoo-base", target), wrapped(zoo / "zoo-base", tmp_path / "out")
    change = product(zoo / "known" / one)
    for name, values in with_out.items():
        expected = with_target[name] - 0.75 * change.get(name, torch.zeros(()))
        assert torch.allclose(values, expected, atol=1e-6), name
    assert not torch.equal(with_target["model.layers.0.self_attn.q_proj.weight"], before["model.layers.0.self_attn.q_proj.weight"])
    assert AblationRecord.model_validate_json((tmp_path / "out" / "ablation.json").read_text()).form == "adapter"
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(zoo / "zoo-base")  # as the target records it
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"adapter_config.json", "adapter_model.safetensors", "ablation.json"}


def test_an_adapter_less_itself_is_nothing(zoo: Path, weights: dict[str, float], tmp_path: Path) -> None:
    one = next(iter(weights))
    adapter = Adapter.open(zoo / "known" / one)
    ablate(adapter, [(adapter, 1.0)], tmp_path / "out")
    out = Adapter.open(tmp_path / "out")
    assert max(float(out.delta(name).dense().abs().max()) for name in out.shapes) < 1e-6


def test_as_adapter(zoo: Path, merged: Merged, weights: dict[str, float], tmp_path: Path) -> None:
    """Loaded by PEFT on the unchanged target: the weights of the ablated checkpoint, before rounding."""
    one, two, _ = weights
    vector, atoms = opened(zoo, merged(weights), one, two)
    removed = list(zip(atoms, (0.9, 0.25), strict=True))
    ablate(vector, removed, tmp_path / "checkpoint")
    ablate(vector, removed, tmp_path / "adapter", as_adapter=True)
    loaded, written = wrapped(merged(weights), tmp_path / "adapter"), tensors(tmp_path / "checkpoint")
    for name, values in written.items():
        assert torch.equal(loaded[name].bfloat16(), values) or torch.allclose(
            loaded[name], values.double(), rtol=torch.finfo(torch.bfloat16).eps / 2, atol=1e-6
        )
    record = AblationRecord.model_validate_json((tmp_path / "adapter" / "ablation.json").read_text())
    assert (record.form, record.removed) == ("adapter for the target", {one: 0.9, two: 0.25})
    assert json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["base_model_name_or_path"] == str(merged(weights))


def test_as_adapter_beside_an_adapter(zoo: Path, weights: dict[str, float], tmp_path: Path) -> None:
    """The target is an adapter: both are loaded on one base, which is therefore what is recorded."""
    one, two, _ = weights
    target = open_vector(zoo / "known" / two, None)
    ablate(target, [(open_vector(zoo / "known" / one, None), 0.5)], tmp_path / "out", as_adapter=True)
    assert json.loads((tmp_path / "out" / "adapter_config.json").read_text())["base_model_name_or_path"] == "unmerge/zoo-base"
    both = wrapped(zoo / "zoo-base", zoo / "known" / two, tmp_path / "out")
    expected = wrapped(zoo / "zoo-base", zoo / "known" / two)
    change = product(zoo / "known" / one)
    assert all(torch.allclose(both[name], expected[name] - 0.5 * change.get(name, torch.zeros(())), atol=1e-6) for name in both)


@pytest.fixture
def gpt2(tmp_path: Path) -> Path:
    """A GPT-2, whose matrices are transposed and whose head is tied."""
    torch.manual_seed(0)
    GPT2LMHeadModel(GPT2Config(vocab_size=32, n_embd=16, n_layer=1, n_head=2, n_positions=8)).save_pretrained(tmp_path / "gpt2")
    return tmp_path / "gpt2"


@pytest.mark.parametrize("modules", ["c_proj", "wte"])
def test_factors_that_would_have_to_change_places(modules: str, gpt2: Path, tmp_path: Path) -> None:
    """A transposed matrix or an embedding: the checkpoint is ablated exactly, an adapter is refused, never written wrong."""
    torch.manual_seed(1)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(gpt2), LoraConfig(r=2, target_modules=[modules], fan_in_fan_out=modules != "wte"))
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = torch.randn_like(parameter)
    model.save_pretrained(tmp_path / "atom", save_embedding_layers=False)
    PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(gpt2), tmp_path / "atom").merge_and_unload().save_pretrained(tmp_path / "target")
    base = open_base(gpt2)
    target, atom = open_vector(tmp_path / "target", base), open_vector(tmp_path / "atom", base)
    ablate(target, [(atom, 1.0)], tmp_path / "out")
    before, after = tensors(gpt2), tensors(tmp_path / "out")
    assert all(torch.allclose(after[name], before[name], atol=1e-6) for name in before)
    with pytest.raises(BadInput) as caught:
        ablate(target, [(atom, 1.0)], tmp_path / "adapter", as_adapter=True)
    text = str(caught.value)
    assert text.startswith("atom, tensor transformer.")
    assert text.endswith(
        "expected components that are LoRA of linear modules, to be written as an adapter, found an adapter with other parts; "
        "ablate the checkpoint instead (leave out --as-adapter)"
    )
    with pytest.raises(BadInput, match=r"expected a target that is a LoRA of linear modules, found a LORA adapter with other parts; merge it into"):
        ablate(atom, [(atom, 0.5)], tmp_path / "adapter")
    assert not (tmp_path / "adapter").exists()
    assert not (tmp_path / ".adapter.partial").exists()


def test_components_that_are_checkpoints(zoo: Path, merged: Merged, weights: dict[str, float], tmp_path: Path) -> None:
    """Subtracted from a checkpoint as any other; not written as an adapter."""
    one, *rest = weights
    base = open_base(zoo / "zoo-base")
    target, atom = open_vector(merged(weights), base), open_vector(merged({one: 1.0}), base)
    ablate(target, [(atom, weights[one])], tmp_path / "out")
    after, expected = tensors(tmp_path / "out"), tensors(merged({name: weights[name] for name in rest}))
    name = "model.layers.1.mlp.up_proj.weight"
    scale = expected[name].float().abs().max()
    assert (after[name].float() - expected[name].float()).abs().max() < 4 * scale * torch.finfo(torch.bfloat16).eps
    with pytest.raises(BadInput, match=r"expected components that are LoRA of linear modules, to be written as an adapter, found a dense change"):
        ablate(target, [(atom, 1.0)], tmp_path / "adapter", as_adapter=True)


def test_which_coefficients(zoo: Path, merged: Merged, weights: dict[str, float]) -> None:
    """Given, found, or neither: an atom that is not in the target has to be given one."""
    one, two, _ = weights
    base = open_base(zoo / "zoo-base")
    target, dictionary = open_vector(merged(weights), base), open_dictionary([zoo / "known"], base)
    calls: list[str] = []

    def watch(items: Iterable[str]) -> Iterable[str]:
        calls.append("decomposed")
        return items

    removed, _ = coefficients(target, dictionary, base, {one: 0.25, two: -1.0}, watch=watch)
    assert [(atom.name, coefficient) for atom, coefficient in removed] == [(one, 0.25), (two, -1.0)]
    assert calls == []
    removed, _ = coefficients(target, dictionary, base, {one: 0.25, two: None}, watch=watch)
    assert [(atom.name, coefficient) for atom, coefficient in removed] == [(one, 0.25), (two, pytest.approx(weights[two], rel=0.02))]
    other = next(atom.name for atom in dictionary.atoms if atom.name not in weights)
    assert coefficients(target, dictionary, base, {other: 0.5}) == ([(dictionary.named(other), 0.5)], [])
    with pytest.raises(BadInput) as caught:
        coefficients(target, dictionary, base, {other: None}, "nnls")
    named = ", ".join(sorted(weights, key=lambda name: str(caught.value).index(name)))
    assert str(caught.value) == f"target: expected a component of the target ({named}), found {other}; give its coefficient: --remove {other}=0.5"
    with pytest.raises(BadInput, match=r"the dictionary: expected one of .*, found elephant; give the name of an atom's folder"):
        coefficients(target, dictionary, base, {"elephant": 0.5})


def test_removals_as_text() -> None:
    assert parse_removals(["a", "b=0.5", "c=-1e-3"]) == {"a": None, "b": 0.5, "c": -0.001}
    for bad in ("a=", "a=half", "a=nan", "a=inf", "a=1=2"):
        with pytest.raises(BadInput, match=r"^--remove a=.*: expected a number after NAME=, found '.*'; write, for example, pirate=0.5$"):
            parse_removals([bad])
    with pytest.raises(BadInput, match=r"^--remove a=0.5: expected every component once, found a twice; give it once, with one coefficient$"):
        parse_removals(["a", "a=0.5"])


def test_output_exists(zoo: Path, merged: Merged, weights: dict[str, float], tmp_path: Path) -> None:
    """The target's own folder above all."""
    one = next(iter(weights))
    vector, (atom,) = opened(zoo, merged(weights), one)
    before = sha256(merged(weights) / "model.safetensors")
    with pytest.raises(BadOutput, match=r"it exists already; remove it or choose another --out"):
        ablate(vector, [(atom, 1.0)], merged(weights))
    assert sha256(merged(weights) / "model.safetensors") == before
    (tmp_path / "empty").mkdir()
    ablate(vector, [(atom, 1.0)], tmp_path / "empty")
    assert Checkpoint.open(tmp_path / "empty").files.place
    assert AutoConfig.from_pretrained(tmp_path / "empty").model_type == "qwen2"


def test_nan_in_the_target(zoo: Path, merged: Merged, weights: dict[str, float], tmp_path: Path) -> None:
    """Found on the way, after shards were written: nothing half-written under the name, and the line says where."""
    one = next(iter(weights))
    target = sharded(merged(weights), tmp_path / "target")
    last = max(target.glob("*.safetensors"))
    damaged = load_file(last)
    name = next(name for name in damaged if name.endswith("proj.weight"))
    damaged[name][1, 0] = float("nan")  # in a row that opening does not look at
    save_file(damaged, last)
    vector, (atom,) = opened(zoo, target, one)
    with pytest.raises(BadInput) as caught:
        ablate(vector, [(atom, 0.9)], tmp_path / "out")
    assert str(caught.value) == f"{last}, tensor {name}: expected finite weights, found NaN or infinity; write or download the file again"
    assert not (tmp_path / "out").exists()
