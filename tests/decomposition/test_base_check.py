"""Another base of the same shape is noticed, and no merge of adapters is taken for one."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from unmerge.decomposition import Decomposition, decompose, open_base, open_dictionary, open_vector
from unmerge.decomposition.base_check import EVERYWHERE, FLAT, LARGE
from unmerge.evaluation.models import load_model
from unmerge.training.finetune import Schedule, finetune
from unmerge_lab.zoo import TASKS
from unmerge_lab.zoo.corpus import adapter_examples

Merged = Callable[..., Path]
SUSPICION = "either this is not the target's base, or the target was fine-tuned as a whole"


def bill(target: Path, base: Path, dictionary: Path) -> Decomposition:
    opened = open_base(base)
    return decompose(open_vector(target, opened), open_dictionary([dictionary], opened), opened, "nnls")


def known(zoo: Path) -> list[str]:
    return sorted(path.name for path in (zoo / "known").iterdir())


MERGES: dict[str, tuple[str, dict[str, Any]]] = {
    "task_arithmetic": ("task_arithmetic", {}),
    "linear": ("linear", {}),
    **{
        f"{method} {density}": (method, {"parameters": {"density": density}})
        for method in ("ties", "dare_linear", "dare_ties")
        for density in (0.1, 0.5, 0.9)
    },
}


@pytest.mark.parametrize("name", MERGES)
def test_loud_merges_do_not_warn(name: str, zoo: Path, merged: Merged) -> None:
    """Five adapters at weight 1.2."""
    method, more = MERGES[name]
    assert_no_suspicion(bill(merged(dict.fromkeys(known(zoo)[:5], 1.2), method, **more), zoo / "zoo-base", zoo / "known"))


@pytest.mark.parametrize("name", [name for name in MERGES if name[-1] not in "59"])
def test_faint_merges_do_not_warn(name: str, zoo: Path, wide_base: Path, merged: Merged) -> None:
    """One adapter at weight 0.1, on a base in float32, so that the merge in bfloat16 rounds every weight."""
    method, more = MERGES[name]
    assert_no_suspicion(bill(merged({known(zoo)[0]: 0.1}, method, base=wide_base, **more), wide_base, zoo / "known"))


def assert_no_suspicion(result: Decomposition) -> None:
    assert result.base_check is not None
    assert not result.base_check.suspicious, result.base_check
    assert result.warnings == []


def test_an_adapter_alone_does_not_warn(zoo: Path, wide_base: Path, merged: Merged) -> None:
    for name in known(zoo)[:2]:
        for base in (zoo / "zoo-base", wide_base):
            result = bill(merged({name: 1.0}, base=base), base, zoo / "known")
            assert result.base_check is not None
            assert not result.base_check.suspicious
            assert result.base_check.norm_in_atoms < LARGE


def noisy(base: Path, out: Path) -> Path:
    """The base with independent noise of a tenth of every tensor's norm."""
    shutil.copytree(base, out)
    torch.manual_seed(0)
    tensors = {}
    for name, values in load_file(base / "model.safetensors").items():
        noise = torch.randn(values.shape)
        tensors[name] = (values + 0.1 * noise * values.float().norm() / noise.norm()).to(values.dtype)
    save_file(tensors, out / "model.safetensors")
    return out


def fresh(base: Path, out: Path) -> Path:
    """A model of the same architecture from another seed."""
    torch.manual_seed(1)
    AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(base), dtype=torch.bfloat16).save_pretrained(out)
    return out


@pytest.mark.parametrize("other", [noisy, fresh], ids=lambda make: make.__name__)
@pytest.mark.parametrize("method", ["task_arithmetic", "ties"])
def test_another_base_is_noticed(other: Callable[[Path, Path], Path], method: str, zoo: Path, merged: Merged, tmp_path: Path) -> None:
    weights = dict.fromkeys(known(zoo)[:3], 1.0)
    target = merged(weights, method, **({"parameters": {"density": 0.5}} if method == "ties" else {}))
    result = bill(target, other(zoo / "zoo-base", tmp_path / "zoo-base"), zoo / "known")
    assert result.base_check is not None
    assert result.base_check.suspicious
    assert result.base_check.untouched_changed >= EVERYWHERE
    (warning,) = result.warnings
    assert warning.endswith(SUSPICION)
    assert "\n" not in warning


def test_a_short_full_fine_tune_is_noticed(zoo: Path, tmp_path: Path) -> None:
    """As 7B-Instruct is to 7B: every tensor moves a little, in few directions, by less than an adapter's norm."""
    model, tokenizer = load_model(zoo / "zoo-base")
    examples = list(itertools.islice(adapter_examples(TASKS[-1], 0), 320))
    finetune(model, tokenizer, examples, Schedule(learning_rate=1e-3, epochs=1, batch_size=32), seed=0).to(torch.bfloat16).save_pretrained(tmp_path)
    result = bill(tmp_path, zoo / "zoo-base", zoo / "known")
    check = result.base_check
    assert check is not None
    assert check.untouched_changed >= EVERYWHERE
    assert check.flat_share < FLAT
    assert check.norm_in_atoms < LARGE
    assert [warning.endswith(SUSPICION) for warning in result.warnings] == [True]


def test_an_unknown_adapter_elsewhere_is_no_other_base(zoo: Path, merged: Merged, tmp_path: Path) -> None:
    """The dictionary knows attention alone; the target's unknown component changes the other matrices too."""
    one, two = known(zoo)[:2]
    folder = tmp_path / one
    shutil.copytree(zoo / "known" / one, folder)
    tensors = load_file(folder / "adapter_model.safetensors")
    save_file({key: values for key, values in tensors.items() if ".q_proj." in key or ".v_proj." in key}, folder / "adapter_model.safetensors")
    result = bill(merged({one: 1.0, two: 1.0}), zoo / "zoo-base", folder)
    assert result.base_check is not None
    assert result.base_check.untouched_share > 0.5
    assert result.warnings == []


def test_share_and_norm(zoo: Path, merged: Merged) -> None:
    """At weight 1 an adapter moves as much as itself, in no tensor that it does not touch, and in few directions."""
    name = known(zoo)[0]
    check = bill(merged({name: 1.0}), zoo / "zoo-base", zoo / "known" / name).base_check
    assert check is not None
    assert check.norm_in_atoms == pytest.approx(1, abs=0.02)
    assert check.untouched_share == 0
    assert check.flat_share < 0.01
    assert 0.001 < check.relative_norm < 0.3


def renamed(zoo: Path, out: Path, name: str, base: str | None) -> Path:
    shutil.copytree(zoo / "known" / name, out / name)
    config = json.loads((out / name / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = base
    (out / name / "adapter_config.json").write_text(json.dumps(config))
    return out


RECORDED = {
    "Qwen/Qwen2.5-7B-Instruct": True,
    "someone/zoo-base-v2": True,
    "unmerge/zoo-base": False,
    "/home/someone/models/Zoo-Base/": False,
    "": False,
    None: False,
}


@pytest.mark.parametrize("recorded", RECORDED)
def test_recorded_base_of_another_name(recorded: str | None, zoo: Path, merged: Merged, tmp_path: Path) -> None:
    """Compared by the last part, without case: folders and owners differ from machine to machine."""
    name = known(zoo)[0]
    folder = renamed(zoo, tmp_path, name, recorded)
    warnings = bill(merged({name: 1.0}), zoo / "zoo-base", folder).warnings
    assert warnings == ([f"{name} records the base {recorded}, not zoo-base"] if RECORDED[recorded] else [])


def test_base_in_a_hub_cache(zoo: Path, merged: Merged, tmp_path: Path) -> None:
    """There the folder is named for a commit; the repository's name counts."""
    base = tmp_path / "models--unmerge--zoo-base" / "snapshots" / "0123abcd"
    shutil.copytree(zoo / "zoo-base", base)
    assert bill(merged({known(zoo)[0]: 1.0}), base, zoo / "known").warnings == []
    other = shutil.copytree(base, tmp_path / "models--unmerge--elsewhere" / "snapshots" / "0123abcd")
    warnings = bill(merged({known(zoo)[0]: 1.0}), other, zoo / "known").warnings
    assert warnings == [f"{name} records the base unmerge/zoo-base, not elsewhere" for name in known(zoo)]


def test_adapters_of_different_bases_without_one(zoo: Path, tmp_path: Path) -> None:
    one, two = known(zoo)[:2]
    renamed(zoo, tmp_path, one, "someone/model-a")
    renamed(zoo, tmp_path, two, "model-b")
    dictionary = open_dictionary([tmp_path], None)
    assert decompose(dictionary.atoms[0], dictionary, method="nnls").warnings == ["the adapters record different bases: model-a, model-b"]
    same = open_dictionary([zoo / "known"], None)
    assert decompose(same.atoms[0], same, method="nnls").warnings == []
