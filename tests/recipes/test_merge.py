"""Phase 2: mergekit in process. The reference is mergekit's own arithmetic, run with its own syntax."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from mergekit.config import MergeConfiguration
from mergekit.merge import run_merge
from mergekit.options import MergeOptions
from peft import PeftModel
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from unmerge.core.errors import BadInput, BadOutput
from unmerge.core.records import sha256
from unmerge.recipes import MergeRecord, merge

Merged = Callable[..., Path]
WEIGHTS = (0.9, 0.5, 0.7)
METHODS: dict[str, dict[str, Any]] = {
    "task_arithmetic": {},
    "linear": {},
    "ties": {"parameters": {"density": 0.4}},
    "dare_linear": {"parameters": {"density": 0.5}},
    "dare_ties": {"parameters": {"density": 0.5}},
}
RANDOM = ("dare_linear", "dare_ties")


def tensors(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "model.safetensors")


def same(left: Path, right: Path) -> bool:
    one, two = tensors(left), tensors(right)
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


@pytest.fixture(scope="module")
def weights(zoo: Path) -> dict[str, float]:
    """Three known adapters of the zoo and their weights."""
    names = sorted(path.name for path in (zoo / "known").iterdir())[:3]
    return dict(zip(names, WEIGHTS, strict=True))


def configured(folder: Path, configuration: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "merge.yml"
    file.write_text(configuration if isinstance(configuration, str) else yaml.safe_dump(configuration))
    return file


def arithmetic(base: Path | str, adapters: dict[str, float], **more: Any) -> dict[str, Any]:
    models = [{"model": name, "parameters": {"weight": weight}} for name, weight in adapters.items()]
    return {"merge_method": "task_arithmetic", "base_model": str(base), "dtype": "bfloat16", "models": models, **more}


@pytest.mark.parametrize("method", METHODS)
def test_equals_mergekit(method: str, zoo: Path, merged: Merged, weights: dict[str, float], tmp_path: Path) -> None:
    ours = merged(weights, method, seed=3, **METHODS[method])
    models = [{"model": f"{zoo / 'zoo-base'}+{zoo / 'known' / name}", "parameters": {"weight": weight}} for name, weight in weights.items()]
    explicit = {"merge_method": method, "dtype": "bfloat16", "models": models, **METHODS[method]}
    if method != "linear":  # there, mergekit would average the base in
        explicit["base_model"] = str(zoo / "zoo-base")
    options = MergeOptions(lora_merge_cache=str(tmp_path / "cache"), random_seed=3, quiet=True)
    run_merge(MergeConfiguration.model_validate(explicit), str(tmp_path / "theirs"), options=options)
    assert same(ours, tmp_path / "theirs")
    assert not same(ours, zoo / "zoo-base")


@pytest.mark.parametrize("method", METHODS)
def test_seed(method: str, merged: Merged, weights: dict[str, float], tmp_path: Path) -> None:
    """The same one gives the same bytes; another one other weights, where the method draws at all."""
    first = merged(weights, method, seed=3, **METHODS[method])
    for name, seed in (("again", 3), ("other", 4)):
        merge(first.parent / "merge.yml", tmp_path / name, seed)
    assert sha256(first / "model.safetensors") == sha256(tmp_path / "again" / "model.safetensors")
    assert same(first, tmp_path / "other") == (method not in RANDOM)


def test_task_arithmetic_is_a_sum(merged: Merged, wide_base: Path, zoo: Path, weights: dict[str, float]) -> None:
    """W + sum w_i s B_i A_i, in float32 on a base in float32, where nothing is rounded to speak of."""
    after, before = tensors(merged(weights, base=wide_base, dtype="float32")), tensors(wide_base)
    name = "model.layers.0.self_attn.q_proj"
    expected = before[f"{name}.weight"].double()
    for adapter, weight in weights.items():
        factors = load_file(zoo / "known" / adapter / "adapter_model.safetensors")
        b, a = (factors[f"base_model.model.{name}.lora_{side}.weight"].double() for side in "BA")
        expected += weight * b @ a  # alpha equals r in the zoo
    assert torch.allclose(after[f"{name}.weight"].double(), expected, atol=1e-6)
    assert torch.equal(after["model.embed_tokens.weight"], before["model.embed_tokens.weight"])


def test_an_adapter_replaced_in_place_is_read_again(zoo: Path, tmp_path: Path, weights: dict[str, float]) -> None:
    """mergekit keys its cache by path: a stale one would give the first merge again."""
    first, second, _ = weights
    shutil.copytree(zoo / "known" / first, tmp_path / "adapter")
    file = configured(tmp_path, arithmetic(zoo / "zoo-base", {"adapter": 1.0}))
    merge(file, tmp_path / "before")
    shutil.rmtree(tmp_path / "adapter")
    shutil.copytree(zoo / "known" / second, tmp_path / "adapter")
    merge(file, tmp_path / "after")
    configured(tmp_path, arithmetic(zoo / "zoo-base", {str(zoo / "known" / second): 1.0}))
    merge(file, tmp_path / "expected")
    assert same(tmp_path / "after", tmp_path / "expected")
    assert not same(tmp_path / "after", tmp_path / "before")


@pytest.mark.parametrize("place", ["plain", "a+b", "me@home", "with blank", "ü/deep"])
def test_paths(place: str, zoo: Path, merged: Merged, tmp_path: Path, weights: dict[str, float], monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative to the configuration's folder, wherever one stands; + and @, where mergekit splits names, and blanks."""
    folder = tmp_path / place
    folder.mkdir(parents=True)
    shutil.copytree(zoo / "zoo-base", folder / f"base {place[0]}+@")
    for name in weights:
        shutil.copytree(zoo / "known" / name, folder / "adapters" / name)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    bare = {f"adapters/{name}": weight for name, weight in weights.items()}
    file = configured(folder, arithmetic(f"base {place[0]}+@", bare))
    record = merge(file, folder / "out")
    assert same(folder / "out", merged(weights))
    assert record.inputs.keys() == {str(folder / f"base {place[0]}+@"), *(str(folder / adapter) for adapter in bare)}


def test_mergekits_own_syntax(zoo: Path, merged: Merged, tmp_path: Path, weights: dict[str, float]) -> None:
    """base+adapter, and whole checkpoints among the models."""
    base = zoo / "zoo-base"
    file = configured(tmp_path, arithmetic(base, {f"{base}+{zoo / 'known' / name}": weight for name, weight in weights.items()}))
    merge(file, tmp_path / "explicit")
    assert same(tmp_path / "explicit", merged(weights))
    first = next(iter(weights))
    # what mergekit makes of an adapter before it takes the difference: PEFT's merge in the base's dtype
    tuned = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype="auto"), zoo / "known" / first).merge_and_unload()
    tuned.save_pretrained(tmp_path / "tuned")
    file = configured(tmp_path, arithmetic(base, {"tuned": weights[first]}))
    merge(file, tmp_path / "of checkpoints")
    assert same(tmp_path / "of checkpoints", merged({first: weights[first]}))


def test_record(zoo: Path, merged: Merged, weights: dict[str, float]) -> None:
    out = merged(weights, "dare_ties", seed=3, **METHODS["dare_ties"])
    record = MergeRecord.model_validate_json((out / "merge.json").read_text())
    assert yaml.safe_load((out / "merge.yml").read_text()) == record.configuration
    assert record.configuration["models"][0]["model"] == str(zoo / "known" / next(iter(weights)))
    assert record.resolved["models"][0]["model"] == f"{zoo / 'zoo-base'}+{zoo / 'known' / next(iter(weights))}"
    assert record.seed == 3
    assert {"mergekit", "torch", "unmerge"} <= record.environment.versions.keys()
    assert record.inputs.keys() == {str(zoo / "zoo-base"), *(str(zoo / "known" / name) for name in weights)}
    for folder, source in record.inputs.items():
        assert {name.rpartition(".")[2] for name in source.sha256} == {"json", "safetensors"}
        assert source.sha256 == {name: sha256(Path(folder) / name) for name in source.sha256}


def test_target_is_a_whole_checkpoint(merged: Merged, zoo: Path, weights: dict[str, float]) -> None:
    out = merged(weights)
    names = {path.name for path in out.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "merge.yml", "merge.json"} <= names
    assert not {name for name in names if name.startswith(".") or name in {"README.md", "mergekit_config.yml"}}
    before = tensors(zoo / "zoo-base")
    assert {name: values.dtype for name, values in tensors(out).items()} == dict.fromkeys(before, torch.bfloat16)


def test_several_documents(inputs: Path, zoo: Path, merged: Merged, weights: dict[str, float], tmp_path: Path) -> None:
    """As mergekit-multi runs them, whatever their order: a document merges what a named one made."""
    from click.testing import CliRunner
    from mergekit.scripts import multimerge

    base, (first, second, third) = str(zoo / "zoo-base"), (f"{zoo / 'zoo-base'}+{zoo / 'known' / name}" for name in weights)
    last = {
        "merge_method": "linear",
        "dtype": "bfloat16",
        "models": [{"model": name, "parameters": {"weight": 0.5}} for name in ("early", third)],
    }
    early = {"name": "early", **arithmetic(base, {first: 0.7, second: 0.4})}
    file = configured(inputs, yaml.safe_dump_all([last, early]))
    record = merge(file, inputs / "out")
    assert [document["name"] for document in record.before] == ["early"]
    assert record.inputs.keys() == {base, *(str(zoo / "known" / name) for name in weights)}
    assert list(yaml.safe_load_all((inputs / "out" / "merge.yml").read_text())) == [early, last]
    folders = ["--out-path", str(tmp_path / "theirs"), "-I", str(tmp_path / "between"), "--lora-merge-cache", str(tmp_path / "cache")]
    done = CliRunner().invoke(multimerge.main, [str(file), *folders], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert same(inputs / "out", tmp_path / "theirs")


def test_without_a_tokenizer(inputs: Path, caplog: pytest.LogCaptureFixture) -> None:
    """mergekit would log a traceback and go on."""
    for path in inputs.glob("base/tokenizer*"):
        path.unlink()
    merge(configured(inputs, arithmetic("base", {"adapter": 1.0})), inputs / "out")
    assert not [record for record in caplog.records if record.exc_info]
    assert not list((inputs / "out").glob("tokenizer*"))


GOOD_MODELS = [{"model": "adapter", "parameters": {"weight": 1.0}}]
BAD: dict[str, tuple[Any, str]] = {
    "broken YAML": ("models: [", "merge.yml: expected a mergekit configuration in YAML, found broken YAML ("),
    "a list": ("- 1", "merge.yml: expected a mergekit configuration, found no mapping"),
    "two results": (
        "merge_method: linear\n---\nmerge_method: ties\n",
        "merge.yml: expected one document without a name, which makes the result, found 2 of 2 documents; give name: to every document",
    ),
    "a circle": (
        "name: a\nmodels: [{model: b}]\n---\nname: b\nmodels: [{model: a}]\n---\nmodels: [{model: a}]\n",
        "merge.yml: expected documents in some order, found a, which is made of itself; name another model",
    ),
    "one name twice": (
        "name: a\n---\nname: a\n---\nmodels: [{model: a}]\n",
        "merge.yml: expected documents of different names, found two named a; rename one of them",
    ),
    "unknown method": (
        {"merge_method": "magic", "base_model": "base", "models": GOOD_MODELS},
        "merge.yml: expected a configuration that mergekit can run, found RuntimeError: Unimplemented merge method magic; check the method",
    ),
    "no method": ({"base_model": "base", "models": GOOD_MODELS}, "merge.yml: expected a configuration that mergekit can run, found ValidationError"),
    "no base": (
        {"merge_method": "task_arithmetic", "models": GOOD_MODELS},
        "adapter: expected a base_model, to put the adapter on, found none; add base_model: to the configuration",
    ),
    "no such folder": (
        {"merge_method": "task_arithmetic", "base_model": "base", "models": [{"model": "./lost", "parameters": {"weight": 1.0}}]},
        "./lost: expected a folder with a model or an adapter, found no such folder; check the path in the configuration",
    ),
    "no such adapter": (
        {"merge_method": "task_arithmetic", "base_model": "base", "models": [{"model": "base+./lost", "parameters": {"weight": 1.0}}]},
        "./lost: expected a folder with a model or an adapter, found no such folder; check the path in the configuration",
    ),
    "neither a folder nor a model on the hub": (
        {"merge_method": "task_arithmetic", "base_model": "base", "models": [{"model": "lost", "parameters": {"weight": 1.0}}]},
        "merge.yml: expected a configuration that mergekit can run, found ",
    ),
    "no weight": (
        {"merge_method": "task_arithmetic", "base_model": "base", "models": [{"model": "adapter"}]},
        "merge.yml: expected a configuration that mergekit can run, found ",
    ),
}


@pytest.fixture
def inputs(zoo: Path, tmp_path: Path, weights: dict[str, float]) -> Path:
    """A folder with ``base`` and ``adapter``."""
    shutil.copytree(zoo / "zoo-base", tmp_path / "base")
    shutil.copytree(zoo / "known" / next(iter(weights)), tmp_path / "adapter")
    return tmp_path


def refusal(file: Path, error: type[Exception] = BadInput) -> str:
    """The text of the refusal to merge; nothing half-written stays."""
    before = {path.name for path in file.parent.iterdir()}
    with pytest.raises(error) as caught:
        merge(file, file.parent / "out")
    assert {path.name for path in file.parent.iterdir()} == before
    text = str(caught.value)
    assert "\n" not in text
    return text.replace(f"{file.parent}/", "")


@pytest.mark.parametrize("name", BAD)
def test_bad_configurations(name: str, inputs: Path) -> None:
    configuration, text = BAD[name]
    assert refusal(configured(inputs, configuration)).startswith(text)


def test_no_configuration(inputs: Path) -> None:
    assert refusal(inputs / "none.yml") == "none.yml: expected a mergekit configuration, found No such file or directory; check the path"
    (inputs / "merge.yml").write_bytes(b"\x80\x81")
    assert refusal(inputs / "merge.yml").startswith("merge.yml: expected a mergekit configuration in YAML, found broken YAML (")


def test_damaged_input(inputs: Path) -> None:
    weights = inputs / "adapter" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    text = refusal(configured(inputs, arithmetic("base", {"adapter": 1.0})))
    assert text.startswith("merge.yml: expected a configuration that mergekit can run, found ")


def test_output_exists(inputs: Path) -> None:
    (inputs / "out").mkdir()
    (inputs / "out" / "mine").write_text("")
    text = refusal(configured(inputs, arithmetic("base", {"adapter": 1.0})), BadOutput)
    assert text == "out: expected a place to write to, found: it exists already; remove it or choose another --out"


def test_interrupted(inputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C after mergekit wrote its files: nothing stays, and the next run is whole."""
    import mergekit.merge

    def interrupted(*args: Any, **kwargs: Any) -> None:
        run_merge(*args, **kwargs)
        raise KeyboardInterrupt

    file = configured(inputs, arithmetic("base", {"adapter": 1.0}))
    before = {path.name for path in inputs.iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr(mergekit.merge, "run_merge", interrupted)
        with pytest.raises(KeyboardInterrupt):
            merge(file, inputs / "out")
    assert {path.name for path in inputs.iterdir()} == before
    merge(file, inputs / "out")
    assert (inputs / "out" / "merge.json").exists()
