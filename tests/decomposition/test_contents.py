"""What lies in a folder that is named: two kinds of weights, leftovers, adapters below, states of a training."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from unmerge.checkpoints import Adapter, Difference
from unmerge.core.errors import BadInput
from unmerge.decomposition import decompose, open_base, open_dictionary, open_vector

Merged = Callable[..., Path]


@pytest.fixture(scope="module")
def names(zoo: Path) -> list[str]:
    return sorted(path.name for path in (zoo / "known").iterdir())[:3]


def refusal(open_it: Callable[[], object]) -> str:
    with pytest.raises(BadInput) as caught:
        open_it()
    return str(caught.value)


@pytest.fixture
def both(zoo: Path, merged: Merged, names: list[str], tmp_path: Path) -> Path:
    """A merge of two adapters in whose folder the files of a third were left."""
    folder = tmp_path / "both"
    shutil.copytree(merged({names[0]: 1.0, names[1]: 0.5}), folder)
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        shutil.copy(zoo / "known" / names[2] / name, folder / name)
    return folder


def test_of_a_checkpoint_and_an_adapter_the_checkpoint_is_explained(zoo: Path, both: Path, names: list[str]) -> None:
    base = open_base(zoo / "zoo-base")
    target = open_vector(both, base)
    assert isinstance(target, Difference)
    result = decompose(target, open_dictionary([zoo / "known"], base), base)
    assert {part.name: round(part.coefficient, 2) for part in result.components} == {names[0]: 1.0, names[1]: 0.5}
    assert "both holds a checkpoint and an adapter: the checkpoint was read, the adapter was not" in result.warnings
    text = refusal(lambda: open_vector(both, None))
    assert text == (
        f"{both}: expected one kind of weights, or a base to tell which of them acts, "
        "found a checkpoint (model.safetensors) and an adapter (adapter_model.safetensors); give the base with --base"
    )


def test_an_adapter_beside_a_copy_of_its_base_acts(zoo: Path, names: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "copied"
    shutil.copytree(zoo / "zoo-base", folder)
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        shutil.copy(zoo / "known" / names[2] / name, folder / name)
    target = open_vector(folder, open_base(zoo / "zoo-base"))
    assert isinstance(target, Adapter)
    assert target.notes == ("copied holds an adapter and a copy of the base: the adapter was read",)


def test_as_an_atom_the_adapter_is_read(zoo: Path, both: Path, names: list[str]) -> None:
    base = open_base(zoo / "zoo-base")
    dictionary = open_dictionary([both, zoo / "known" / names[0]], base)
    assert all(isinstance(atom, Adapter) for atom in dictionary.atoms)
    result = decompose(open_vector(zoo / "known" / names[2], base), dictionary, base)
    assert {part.name: round(part.coefficient, 3) for part in result.components} == {"both": 1.0}
    assert "both holds a checkpoint and an adapter: as an atom of the dictionary the adapter was read" in result.warnings


@pytest.mark.parametrize("left", ["adapter_config.json", "adapter_model.safetensors"])
def test_half_an_adapter_left_beside_a_checkpoint(left: str, zoo: Path, both: Path) -> None:
    for name in {"adapter_config.json", "adapter_model.safetensors"} - {left}:
        (both / name).unlink()
    torch.save(transformers.TrainingArguments(output_dir=str(both / "out")), both / "training_args.bin")
    target = open_vector(both, open_base(zoo / "zoo-base"))
    assert isinstance(target, Difference)
    assert target.notes == (f"both holds a checkpoint and {left} alone, a part of an adapter: the checkpoint was read",)


def test_a_target_without_its_configuration_is_refused(zoo: Path, names: list[str], tmp_path: Path) -> None:
    """Its scale decides every coefficient."""
    shutil.copytree(zoo / "known" / names[0], tmp_path / "bare")
    (tmp_path / "bare" / "adapter_config.json").unlink()
    text = "expected adapter_config.json beside adapter_model.safetensors, since it says at which scale the adapter acts, found none; put it there"
    assert refusal(lambda: open_vector(tmp_path / "bare", None)) == f"{tmp_path / 'bare'}: {text}"


def test_an_atom_without_its_configuration_is_read_at_scale_1(zoo: Path, merged: Merged, names: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "dictionary"
    for name in names:
        shutil.copytree(zoo / "known" / name, folder / name)
    weights = folder / names[0] / "adapter_model.safetensors"  # of twice the scale that will be taken for it
    save_file({name: values / 2 if "lora_B" in name else values for name, values in load_file(weights).items()}, weights)
    (folder / names[0] / "adapter_config.json").unlink()
    base = open_base(zoo / "zoo-base")
    result = decompose(open_vector(merged({names[0]: 0.5, names[1]: 0.75}), base), open_dictionary([folder], base), base)
    found = {part.name: part.coefficient for part in result.components}
    assert found == pytest.approx({names[0]: 1.0, names[1]: 0.75}, rel=0.01)
    said = f"{names[0]} has no adapter_config.json and was read at scale 1: a coefficient of it is the one that acted times alpha / r"
    assert said in result.warnings
    save_file({"base_model.model.score.weight": torch.ones(2, 2)}, weights)
    text = "expected adapter_config.json beside adapter_model.safetensors, found none, and weights that do not say what it would; put it there"
    assert refusal(lambda: open_dictionary([folder], base)) == f"{folder / names[0]}: {text}"


def test_several_adapters_of_one_model_as_peft_writes_them(zoo: Path, tmp_path: Path) -> None:
    """The one that has no name lies in the folder itself, or in ``default`` where all lie below; the others in folders of their names."""
    model = transformers.AutoModelForCausalLM.from_pretrained(zoo / "zoo-base")
    config = peft.LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        several = peft.get_peft_model(model, config)
        several.add_adapter("style", config)
        several.add_adapter("facts", config)
        several.save_pretrained(tmp_path / "saved")
        several.save_pretrained(tmp_path / "known" / "named", selected_adapters=["style", "facts"])
    assert {path.name for path in (tmp_path / "saved").iterdir() if path.is_dir()} == {"style", "facts"}
    assert set(open_dictionary([tmp_path / "saved"], None).names) == {"saved", "style", "facts"}
    assert set(open_dictionary([tmp_path / "known"], None).names) == {"style", "facts"}
    shutil.copytree(tmp_path / "known" / "named" / "style", tmp_path / "other" / "run" / "default")
    assert open_dictionary([tmp_path / "other"], None).names == ("run",), "an adapter that was given no name is called as its run"
    text = refusal(lambda: open_vector(tmp_path / "known" / "named", None))
    assert text.endswith("found folders that hold one (facts, style); name one of them")


@pytest.mark.parametrize("merged_before", [False, True])
def test_a_model_saved_before_its_adapter_was_merged(merged_before: bool, zoo: Path, names: list[str], tmp_path: Path) -> None:
    """The state dict of PEFT's own model, written as a checkpoint; what acts is what PEFT's merge changes, whatever else was trained."""
    folder, base = tmp_path / "dump", open_base(zoo / "zoo-base")
    model = transformers.AutoModelForCausalLM.from_pretrained(zoo / "zoo-base", dtype=torch.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wrapped = peft.PeftModel.from_pretrained(model, zoo / "known" / names[0])
        wrapped.base_model.model.model.norm.weight.data += 0.25
        if merged_before:
            wrapped.merge_adapter()
        state = {name: values.detach().clone().contiguous() for name, values in wrapped.state_dict().items()}
        truth = wrapped.merge_and_unload().state_dict() if not merged_before else {}
    folder.mkdir()
    shutil.copy(zoo / "zoo-base" / "config.json", folder)
    save_file(state, folder / "model.safetensors")
    assert any("lora_A.default" in name for name in state)
    assert "found a model that was saved before its adapter was merged" in refusal(lambda: open_vector(folder, base)), "its scale is not known"
    shutil.copy(zoo / "known" / names[0] / "adapter_config.json", folder)
    if merged_before:
        assert "expected base_layer weights without the adapter's change, found weights into which it was merged" in refusal(
            lambda: open_vector(folder, base)
        )
        return
    target = open_vector(folder, base)
    assert target.notes == ("dump was saved before its adapter was merged: what acts, base_layer and the adapter on it, was read",)
    assert "model.norm.weight" in target.shapes
    for tensor in target.shapes:
        torch.testing.assert_close(target.delta(tensor).dense(), truth[tensor] - base.read(tensor).float(), atol=1e-6, rtol=0)
    assert "model.embed_tokens.weight" not in target.shapes, "what is the base's own does not count"
    result = decompose(target, open_dictionary([zoo / "known"], base), base)
    assert result.coefficient(names[0]) == pytest.approx(1.0, abs=0.01)


def test_states_of_a_training_are_named_and_not_read(zoo: Path, merged: Merged, names: list[str], tmp_path: Path) -> None:
    known = zoo / "known"
    shutil.copytree(known / names[0], tmp_path / "dictionary" / "run")
    shutil.copytree(known / names[1], tmp_path / "dictionary" / "run" / "checkpoint-500")
    shutil.copytree(known / names[2], tmp_path / "dictionary" / "unfinished" / "checkpoint-20")
    dictionary = open_dictionary([tmp_path / "dictionary"], None)
    assert dictionary.names == ("run",)
    said = [
        f"{tmp_path / 'dictionary' / place} is a state of a training that went on, and was not read"
        for place in ("run/checkpoint-500", "unfinished/checkpoint-20")
    ]
    assert list(dictionary.ignored) == said
    assert open_dictionary([tmp_path / "dictionary" / "unfinished" / "checkpoint-20"], None).names == ("checkpoint-20",), "where it is named itself"


def test_loose_files_of_weights_are_refused(zoo: Path, names: list[str], tmp_path: Path) -> None:
    shutil.copytree(zoo / "known" / names[0], tmp_path / "dictionary" / names[0])
    weights = tmp_path / "dictionary" / "other.safetensors"
    save_file(load_file(zoo / "known" / names[1] / "adapter_model.safetensors"), weights)
    expected = "expected adapters, each in its own folder, found a LoRA in PEFT's names, by itself; "
    hint = "put it in a folder of its own as adapter_model.safetensors, beside its adapter_config.json"
    assert refusal(lambda: open_dictionary([tmp_path / "dictionary"], None)) == f"{weights}: {expected}{hint}"
    assert refusal(lambda: open_vector(weights, None)) == f"{weights}: expected a folder, found a LoRA in PEFT's names, by itself; {hint}"


def test_a_configuration_left_from_quantised_training_is_said(zoo: Path, merged: Merged, names: list[str], tmp_path: Path) -> None:
    shutil.copytree(merged({names[0]: 1.0}), tmp_path / "target")
    file = tmp_path / "target" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}))
    base = open_base(zoo / "zoo-base")
    result = decompose(open_vector(tmp_path / "target", base), open_dictionary([zoo / "known"], base), base)
    assert [part.name for part in result.components] == [names[0]]
    assert "config.json still calls target quantised (bitsandbytes); its weights are not, and were read" in result.warnings
