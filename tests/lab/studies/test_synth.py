"""A synthetic zoo: read by PEFT and transformers, its merges mergekit's own, scored by a study as any other."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import peft
import pytest
import torch
import transformers
import yaml
from typer.testing import CliRunner

from unmerge.checkpoints import Adapter, Checkpoint, Difference
from unmerge.cli import app
from unmerge.core.errors import BadInput
from unmerge.decomposition import open_base, open_dictionary
from unmerge.recipes import merge
from unmerge.vectors import gram
from unmerge_lab.studies.design import StudyDesign
from unmerge_lab.studies.study import run_study
from unmerge_lab.studies.synthetic.architectures import Architecture, names
from unmerge_lab.studies.synthetic.draw import Kin, Statistics, spectrum
from unmerge_lab.studies.synthetic.make import DrawnAdapters, SynthDesign, families, synthesise

PLAN = {
    "model_type": "qwen2",
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 40,
    "tie_word_embeddings": False,
    "bos_token_id": 0,
    "eos_token_id": 1,
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("synth")
    (folder / "config.json").write_text(json.dumps(PLAN))
    design = SynthDesign(architecture=str(folder / "config.json"), known=8, unknown=3, rank=4, norm=0.05, adapters=True)
    synthesise(design, folder / "zoo", shard=40_000)
    return folder / "zoo"


def test_transformers_and_peft_load_what_was_written(made: Path) -> None:
    assert len(list((made / "zoo-base").glob("model-*.safetensors"))) > 1
    model = transformers.AutoModelForCausalLM.from_pretrained(made / "zoo-base", dtype="auto")
    before = {name: values.clone() for name, values in model.state_dict().items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        after = peft.PeftModel.from_pretrained(model, made / "known" / "known-00").merge_and_unload().state_dict()
    changed = {name for name, values in after.items() if not torch.equal(values, before[name])}
    atom = Adapter.open(made / "known" / "known-00", Checkpoint.open(made / "zoo-base"))
    assert changed == set(atom.shapes)
    assert len(changed) == 7 * PLAN["num_hidden_layers"]


@pytest.mark.parametrize("method", ["task_arithmetic", "ties"])
def test_merges_are_those_of_mergekit_itself(made: Path, tmp_path: Path, method: str) -> None:
    name = f"known-{method}-bfloat16-0-0"
    target = json.loads((made / "targets" / name / "target.json").read_text())
    parameters = {"density": target["density"]} if target["density"] else {}
    models = [{"model": str(made / "known" / atom), "parameters": {"weight": weight, **parameters}} for atom, weight in target["weights"].items()]
    configuration = {"merge_method": method, "base_model": str(made / "zoo-base"), "dtype": "bfloat16", "models": models}
    (tmp_path / "merge.yml").write_text(yaml.safe_dump(configuration))
    merge(tmp_path / "merge.yml", tmp_path / "merged")
    ours, theirs = Checkpoint.open(made / "targets" / name), Checkpoint.open(tmp_path / "merged")
    assert ours.shapes.keys() == theirs.shapes.keys()
    assert all(torch.equal(ours.read(tensor), theirs.read(tensor)) for tensor in ours.shapes)


def test_statistics_are_those_asked_for(made: Path) -> None:
    base = open_base(made / "zoo-base")
    atoms = open_dictionary([made / "known"], base).atoms
    products = gram(atoms, atoms[0]).gram.sum(0)
    weights = sum(float(base.read(tensor).double().square().sum()) for tensor in atoms[0].shapes)
    norms = np.sqrt(np.diag(products))
    assert np.abs(norms / np.sqrt(weights) / 0.05 - 1).max() < 0.3
    cosines = (products / np.outer(norms, norms))[~np.eye(len(norms), dtype=bool)]
    assert 0.08 < cosines.mean() < 0.25
    leading = [float(values[0] ** 2 / values.square().sum()) for atom in atoms for tensor in atom.shapes for values in [atom.delta(tensor).svd()[1]]]
    assert 0.7 < np.quantile(leading, 0.25) < np.quantile(leading, 0.75) < 0.9


@pytest.mark.parametrize(("rank", "share"), [(32, 0.8), (4, 0.7), (8, 0.3), (1, 0.9)])
def test_a_spectrum_falls_as_a_power_of_its_place(rank: int, share: float) -> None:
    values = spectrum(rank, share).double()
    assert float(values.square().sum()) == pytest.approx(1, rel=1e-5)
    assert float(values[0] ** 2) == pytest.approx(share if rank > 1 else 1, rel=1e-4)
    if rank > 2:
        power = -float(torch.log(values[1] / values[0])) / np.log(2)
        assert float(values[2] / values[0]) == pytest.approx(3**-power, rel=1e-4)


def test_families_are_as_alike_as_their_kind_says() -> None:
    """A continuation points the same way, one seed shares row spaces alone, one author's are in between; relatives lie in both halves."""
    names_ = [f"{half}-{place:02d}" for half, count in (("known", 10), ("unknown", 4)) for place in range(count)]
    kin = families(names_, 3)
    drawn = DrawnAdapters({"layer.weight": (192, 160)}, Statistics(rank=8, cosine=0.05), kin, 3)
    by_family: dict[Kin, list[str]] = {}
    for name, own in kin.items():
        by_family.setdefault(own, []).append(name)
    assert any({name.partition("-")[0] for name in members} == {"known", "unknown"} for members in by_family.values())
    cosines: dict[str, list[float]] = {}
    for own, members in by_family.items():
        if own.kind != "alone":
            one, other = (drawn.change(name, "layer.weight").dense().float() for name in members)
            cosines.setdefault(own.kind, []).append(float((one * other).sum() / one.norm() / other.norm()))
            rows = [torch.linalg.qr(drawn.change(name, "layer.weight").a.float().T)[0] for name in members]
            overlap = float((rows[0].T @ rows[1]).square().sum() / 8)
            assert overlap > (0.2 if own.kind == "author" else 0.6)
    assert min(cosines["run"]) > 0.8
    assert 0.15 < min(cosines["author"]) < max(cosines["author"]) < 0.6
    assert max(cosines["start"]) < 0.4


def test_dare_keeps_about_its_density(made: Path) -> None:
    base = Checkpoint.open(made / "zoo-base")
    changed = {
        merge: sum(
            int(Difference("t", Checkpoint.open(made / "targets" / f"known-{merge}-bfloat16-0-0"), base).delta(tensor).dense().count_nonzero())
            for tensor in ("model.layers.0.mlp.up_proj.weight", "model.layers.2.self_attn.q_proj.weight")
        )
        for merge in ("task_arithmetic", "dare_linear")
    }
    assert 0.7 < changed["dare_linear"] / changed["task_arithmetic"] < 1  # three masks at density .5: 1 - .5^3 of the entries


def test_a_study_scores_the_targets_as_they_are(made: Path, tmp_path: Path) -> None:
    design = StudyDesign.read(made / "study.yml").model_copy(update={"groups": ["mixed"], "adapters": {}})
    untouched = {file: file.stat().st_mtime_ns for file in made.rglob("*.safetensors")}
    record = run_study(design, tmp_path / "run", lambda *_: None)
    assert record.targets == 3
    assert not (tmp_path / "run" / "targets").exists()
    assert {file: file.stat().st_mtime_ns for file in made.rglob("*.safetensors")} == untouched


def test_the_same_seed_gives_the_same_bytes(made: Path, tmp_path: Path) -> None:
    design = SynthDesign.model_validate(json.loads((made / "synth.json").read_text())["design"])
    synthesise(design.model_copy(update={"groups": ["mixed"], "merges": ["dare_linear"], "adapters": False}), tmp_path / "again", shard=40_000)
    name = "mixed-dare_linear-bfloat16-0-0"
    for part in ("zoo-base", "unknown/unknown-02", f"targets/{name}"):
        for file in (tmp_path / "again" / part).iterdir():
            assert file.read_bytes() == (made / part / file.name).read_bytes(), file


@pytest.mark.parametrize("name", names())
def test_every_architecture_has_the_shapes_of_its_model(name: str) -> None:
    architecture = Architecture.named(name).cut(1, 64)
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model(**architecture.config))
    theirs = {key: tuple(values.shape) for key, values in model.state_dict().items()}
    if architecture.config["tie_word_embeddings"]:
        theirs.pop("lm_head.weight")
    assert dict(architecture.tensors()) == theirs


def test_sizes_that_go_by_name() -> None:
    def weights(name: str) -> float:
        return sum(torch.Size(shape).numel() for shape in Architecture.named(name).tensors().values()) / 1e9

    published = {"Qwen2.5-0.5B": 0.494, "Qwen2.5-1.5B": 1.544, "Qwen2.5-7B": 7.616, "Llama-3.1-8B": 8.030, "Mistral-7B-v0.3": 7.248}
    assert {name: round(weights(name), 3) for name in published} == published


def test_bad_designs(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"expected one of Qwen2.5-0.5B, .* found Qwen9; choose one of them"):
        Architecture.named("Qwen9")
    with pytest.raises(BadInput, match=r"expected 1 to 28 layers, found 29; Qwen2.5-7B has 28"):
        Architecture.named("Qwen2.5-7B").cut(29, None)
    with pytest.raises(BadInput, match="--unknown: expected at least 3 adapters, for targets of 3 components, found 1; give --unknown 3"):
        synthesise(SynthDesign(architecture="Qwen2.5-0.5B", unknown=1), tmp_path / "zoo")
    with pytest.raises(BadInput, match="expected a base to merge on, found --no-base; leave it out, or give --merges none"):
        synthesise(SynthDesign(architecture="Qwen2.5-0.5B", base=False), tmp_path / "zoo")
    done = CliRunner().invoke(app, ["synth", "--out", str(tmp_path / "zoo"), "--merges", "slerp"])
    assert done.exit_code == 2
    assert "expected a valid --merges" in done.output
    assert not list(tmp_path.iterdir())
