"""Bills of materials of targets whose ingredients are known, made by mergekit from the zoo's adapters; dense oracles beside them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from unmerge.core.errors import BadInput
from unmerge.core.records import sha256, write_json
from unmerge.decomposition import Decomposition, Dictionary, decompose, open_base, open_dictionary, open_vector
from unmerge.decomposition.run import METHODS

Merged = Callable[..., Path]
WEIGHTS = (0.9, 0.5, 0.7)


@pytest.fixture(scope="module")
def weights(zoo: Path) -> dict[str, float]:
    """Three known adapters of the zoo and their weights."""
    names = sorted(path.name for path in (zoo / "known").iterdir())[:3]
    return dict(zip(names, WEIGHTS, strict=True))


def bill(target: Path, base: Path | None, *dictionaries: Path, method: str = "nnls") -> Decomposition:
    opened = open_base(base) if base else None
    return decompose(open_vector(target, opened), open_dictionary(dictionaries, opened), opened, method)


def change(folder: Path, base: Path) -> dict[str, Tensor]:
    """The dense task vector of an adapter (a LoRA with alpha equal to r, as in the zoo) or a checkpoint."""
    before = {name: values.double() for name, values in load_file(base / "model.safetensors").items()}
    if not (folder / "adapter_config.json").exists():
        return {name: values.double() - before[name] for name, values in load_file(folder / "model.safetensors").items()}
    factors = load_file(folder / "adapter_model.safetensors")
    moved = {name: torch.zeros_like(values) for name, values in before.items()}
    for key in factors:
        if ".lora_B." in key:
            name = key.removeprefix("base_model.model.").replace(".lora_B", "")
            moved[name] = factors[key].double() @ factors[key.replace("lora_B", "lora_A")].double()
    return moved


def flat(tensors: dict[str, Tensor]) -> np.ndarray:
    return torch.cat([tensors[name].reshape(-1) for name in sorted(tensors)]).numpy()


def all_coefficients(result: Decomposition) -> dict[str, float]:
    return {entry.name: entry.coefficient for entry in (*result.components, *result.absent)}


@pytest.mark.parametrize("method", ["task_arithmetic", "linear"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "bfloat16 of a float32 base"])
def test_known_targets(method: str, precision: str, zoo: Path, wide_base: Path, merged: Merged, weights: dict[str, float]) -> None:
    """The weights of the recipe come back.

    In float32 up to its own rounding. In bfloat16 mergekit rounds the recipe's weights (by up to 2^-9 of them; what acted is
    what is found), the merged weights (noise, of which least squares averages most away) and, on a base in bfloat16, the adapters.
    """
    base = zoo / "zoo-base" if precision == "bfloat16" else wide_base
    result = bill(merged(weights, method, base=base, dtype=precision.split()[0]), base, zoo / "known")
    total = sum(weights.values()) if method == "linear" else 1.0
    expected = {name: weight / total for name, weight in weights.items()}
    found = {component.name: component.coefficient for component in result.components}
    assert found == pytest.approx(expected, rel=1e-4 if precision == "float32" else 2**-9 + 0.004)
    assert all(abs(entry.coefficient) < (1e-4 if precision == "float32" else 0.01) for entry in result.absent)
    assert result.reconstruction_error < (1e-3 if precision == "float32" else 0.15)
    assert result.warnings == []
    assert result.solver is not None
    assert result.solver.violation is not None
    assert result.solver.violation < 1e-7


@pytest.mark.parametrize("method", ["nnls", "omp", "dot"])
def test_methods_name_what_is_in_it(method: str, zoo: Path, merged: Merged, weights: dict[str, float]) -> None:
    """Alone, an atom also gets what it shares with the others: dot may name more, and says more of each."""
    result = bill(merged(weights), zoo / "zoo-base", zoo / "known", method=method)
    found = {component.name: component.coefficient for component in result.components}
    assert result.method == method
    assert set(list(found)[:3]) == weights.keys()
    if method != "dot":
        assert found == pytest.approx(weights, rel=0.01)
    shares = [component.share for component in result.components]
    assert shares == sorted(shares, reverse=True)
    # every atom is either named or absent
    assert sorted(all_coefficients(result)) == sorted(path.name for path in (zoo / "known").iterdir())
    assert len(all_coefficients(result)) == len(result.components) + len(result.absent)


def test_against_dense_least_squares(zoo: Path, merged: Merged, weights: dict[str, float]) -> None:
    """Errors, shares, norm and condition number against the expanded matrix, on a target that leaves a rest (dare)."""
    base, target = zoo / "zoo-base", merged(weights, "dare_ties", parameters={"density": 0.5})
    result = bill(target, base, zoo / "known")
    given = all_coefficients(result)
    atoms = np.stack([flat(change(zoo / "known" / name, base)) for name in given], axis=1)
    t = flat(change(target, base))
    c = np.array(list(given.values()))
    fitted = atoms @ c
    assert result.norm == pytest.approx(np.linalg.norm(t))
    assert result.reconstruction_error == pytest.approx(np.linalg.norm(t - fitted) / np.linalg.norm(t))
    assert result.unexplained.share == pytest.approx(result.reconstruction_error**2)
    cosine = t @ fitted / (np.linalg.norm(t) * np.linalg.norm(fitted))
    assert result.one_minus_cosine_squared == pytest.approx(1 - cosine**2)
    assert 0.1 < result.reconstruction_error < 0.9
    norms = np.linalg.norm(atoms, axis=0)
    for component in result.components:
        place = list(given).index(component.name)
        assert component.share == pytest.approx(component.coefficient * norms[place] / np.linalg.norm(t))
    values = np.linalg.eigvalsh((atoms / norms).T @ (atoms / norms))
    assert result.condition_number == pytest.approx(values[-1] / values[0])
    gradient = atoms.T @ (fitted - t) / (norms * np.linalg.norm(t))
    assert np.abs(gradient[c > 0]).max() < 1e-6
    assert gradient.min() > -1e-6


@pytest.fixture(scope="module")
def checkpoints(zoo: Path, weights: dict[str, float], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The three adapters, each merged into the base by PEFT and saved whole."""
    folder = tmp_path_factory.mktemp("checkpoints")
    for name in weights:
        base = AutoModelForCausalLM.from_pretrained(zoo / "zoo-base", dtype="auto")
        PeftModel.from_pretrained(base, zoo / "known" / name).merge_and_unload().save_pretrained(folder / name)
    return folder


def only(folder: Path, source: Path, names: Sequence[str]) -> Path:
    for name in names:
        shutil.copytree(source / name, folder / name)
    return folder


@pytest.mark.parametrize("whole", [3, 1])
def test_atoms_that_are_checkpoints(whole: int, zoo: Path, merged: Merged, weights: dict[str, float], checkpoints: Path, tmp_path: Path) -> None:
    """All three as whole checkpoints, or one beside adapters: the same coefficients."""
    names = list(weights)
    whole_ones = only(tmp_path / "whole", checkpoints, names[:whole])
    adapters = only(tmp_path / "adapters", zoo / "known", [path.name for path in (zoo / "known").iterdir() if path.name not in names[:whole]])
    result = bill(merged(weights), zoo / "zoo-base", whole_ones, adapters)
    assert {component.name: component.coefficient for component in result.components} == pytest.approx(weights, rel=0.01)
    assert result.dictionary[names[0]].sha256.keys() == {"model.safetensors", "config.json"}


def test_an_atom_that_is_a_checkpoint_is_taken_as_it_acted(zoo: Path, merged: Merged, weights: dict[str, float], checkpoints: Path) -> None:
    """mergekit merges each adapter into the bfloat16 base before it takes differences, so these atoms explain more."""
    target = merged(weights)
    rounded = bill(target, zoo / "zoo-base", checkpoints)
    assert rounded.reconstruction_error < bill(target, zoo / "zoo-base", zoo / "known").reconstruction_error


def test_an_adapter_as_target(zoo: Path, weights: dict[str, float]) -> None:
    name = next(iter(weights))
    for base in (None, zoo / "zoo-base"):
        result = bill(zoo / "known" / name, base, zoo / "known")
        assert [(component.name, pytest.approx(component.coefficient)) for component in result.components] == [(name, 1.0)]
        assert result.reconstruction_error < 1e-6
        assert result.one_minus_cosine_squared < 1e-12
        assert result.base_check is None
        assert (result.base is None) == (base is None)


def test_nothing_known_is_in_it(zoo: Path, merged: Merged, tmp_path: Path, weights: dict[str, float]) -> None:
    """The target holds one adapter that the dictionary lacks: nothing is named, and everything is unexplained."""
    one, *rest = weights
    result = bill(merged({one: 1.0}), zoo / "zoo-base", only(tmp_path / "rest", zoo / "known", rest))
    assert result.components == []
    assert {entry.name for entry in result.absent} == set(rest)
    assert result.unexplained.share > 0.9


CONTRACT = {
    "": {"schema", "components", "absent", "unexplained", "reconstruction_error", "method", "skipped", "target", "base", "dictionary", "warnings"},
    "components": {"name", "coefficient", "interval", "containment", "p_value", "q_value", "group"},
    "absent": {"name", "containment", "p_value", "detection_limit"},
    "unexplained": {"share", "rounding_share", "rank", "components"},
}


def test_json(zoo: Path, merged: Merged, weights: dict[str, float], tmp_path: Path) -> None:
    """The keys are a contract; what needs the certificate is null without it; the file reads back as the same result."""
    target = merged(weights)
    result = bill(target, zoo / "zoo-base", zoo / "known")
    write_json(tmp_path / "bill.json", result)
    raw = json.loads((tmp_path / "bill.json").read_text())
    assert raw["schema"] == "unmerge/decomposition/1"
    assert not [key for key in raw if key.endswith("_")]
    for part, keys in CONTRACT.items():
        found = raw if not part else raw[part][0] if isinstance(raw[part], list) else raw[part]
        assert keys <= found.keys()
        certificate = keys & {"interval", "containment", "p_value", "q_value", "detection_limit", "rounding_share", "rank"}
        assert all(found[key] is None for key in certificate)
    assert raw["unexplained"]["components"] is None
    assert raw["components"][0]["group"] == []
    assert raw["target"]["sha256"]["model.safetensors"] == sha256(target / "model.safetensors")
    name = next(iter(weights))
    assert raw["dictionary"][name]["sha256"]["adapter_model.safetensors"] == sha256(zoo / "known" / name / "adapter_model.safetensors")
    assert raw["base"]["path"] == str(zoo / "zoo-base")
    assert {"torch", "unmerge"} <= raw["environment"]["versions"].keys()
    assert Decomposition.model_validate(raw) == result


def test_what_is_left_out_is_in_the_result(zoo: Path, merged: Merged, weights: dict[str, float], tmp_path: Path) -> None:
    target = shutil.copytree(merged(weights), tmp_path / "target")
    tensors = load_file(target / "model.safetensors")
    embedding = tensors["model.embed_tokens.weight"]
    save_file(tensors | {"model.embed_tokens.weight": torch.cat([embedding, embedding[:2]]), "extra": torch.ones(2)}, target / "model.safetensors")
    result = bill(target, zoo / "zoo-base", zoo / "known")
    reasons = {skip.tensor: skip.reason for skip in result.skipped}
    rows = len(embedding)
    assert reasons == {
        "model.embed_tokens.weight": f"target: rows {rows} to {rows + 1} of {rows + 2}: only the target has them, "
        f"and the {rows} that both have are compared",
        "extra": "target: only the target has it",
    }
    assert {component.name for component in result.components} == weights.keys()


def test_refusals(zoo: Path, merged: Merged, weights: dict[str, float], tmp_path: Path) -> None:
    target = merged(weights)
    cases: list[tuple[Callable[[], object], str]] = [
        (
            lambda: bill(target, zoo / "zoo-base", zoo / "known", method="magic"),
            f"--method: expected one of {', '.join(METHODS)}, found magic; choose one",
        ),
        (
            lambda: bill(target, None, zoo / "known"),
            f"{target}: expected a base to subtract from a checkpoint, found none; give the base with --base",
        ),
        (
            lambda: bill(zoo / "zoo-base", zoo / "zoo-base", zoo / "known"),
            f"{zoo / 'zoo-base'}: expected a target that differs from its base, found a task vector of zero; check that target and base are not",
        ),
        (lambda: bill(target, zoo / "zoo-base", tmp_path), f"{tmp_path}: expected adapters, each in its own folder, found none; give the folder"),
        (
            lambda: bill(target, zoo / "zoo-base", zoo / "known", zoo / "known"),
            f"{zoo / 'known' / min(path.name for path in (zoo / 'known').iterdir())}: expected a different name for every atom, found a second ",
        ),
        (lambda: bill(tmp_path, zoo / "zoo-base", zoo / "known"), f"{tmp_path}: expected an adapter (adapter_config.json) or a checkpoint"),
    ]
    for run, text in cases:
        with pytest.raises(BadInput) as caught:
            run()
        assert str(caught.value).startswith(text)


def zeroed(folder: Path, side: str) -> None:
    tensors = load_file(folder / "adapter_model.safetensors")
    save_file({key: values * 0 if side in key else values for key, values in tensors.items()}, folder / "adapter_model.safetensors")


def test_an_untrained_atom_is_listed_and_not_looked_for(zoo: Path, merged: Merged, weights: dict[str, float], tmp_path: Path) -> None:
    """As PEFT initialises an adapter: B is zero. The others are found as without it."""
    one, two, three = weights
    folder = only(tmp_path / "dictionary", zoo / "known", list(weights))
    zeroed(folder / two, "lora_B")
    target = merged({one: 0.8, three: 0.5})
    for method in ("certificate", "nnls"):
        result = bill(target, zoo / "zoo-base", folder, method=method)
        alone = bill(target, zoo / "zoo-base", folder / one, folder / three, method=method)
        assert {part.name: part.coefficient for part in result.components} == pytest.approx(
            {part.name: part.coefficient for part in alone.components}
        )
        assert {part.name for part in result.components} == {one, three}
        assert [(absent.name, absent.coefficient, absent.reason) for absent in result.absent] == [(two, 0.0, "it changes nothing")]
        assert result.warnings == [f"{two} changes nothing, as an adapter before its training does, and was not looked for"]
        assert result.dictionary.keys() == weights.keys()


def test_what_changes_nothing_at_all_is_refused(zoo: Path, merged: Merged, weights: dict[str, float], tmp_path: Path) -> None:
    one, two, _ = weights
    folder = only(tmp_path / "dictionary", zoo / "known", [one, two])
    zeroed(folder / two, "lora_B")
    with pytest.raises(BadInput, match=r"expected a target that differs from its base, found a task vector of zero"):
        bill(folder / two, None, folder / one)
    zeroed(folder / one, "lora_B")
    with pytest.raises(BadInput) as caught:
        bill(merged(weights), zoo / "zoo-base", folder)
    text = "expected an atom that changes weights, found task vectors of zero alone; give adapters that were trained"
    assert str(caught.value) == f"{folder / min(one, two)}: {text}"


def test_named(zoo: Path) -> None:
    dictionary = open_dictionary([zoo / "known"], None)
    assert isinstance(dictionary, Dictionary)
    first = dictionary.atoms[0]
    assert dictionary.named(first.name) is first
    with pytest.raises(BadInput, match=rf"the dictionary: expected one of {first.name}, .*, found elephant; give the name of an atom's folder"):
        dictionary.named("elephant")


def test_entries_that_are_no_atoms(zoo: Path, merged: Merged, weights: dict[str, float], tmp_path: Path) -> None:
    """A folder that is neither adapter nor checkpoint is said; files and hidden folders are nobody's atoms."""
    folder = only(tmp_path / "dictionary", zoo / "known", list(weights))
    (folder / "notes").mkdir()
    (folder / ".cache").mkdir()
    (folder / "README.md").write_text("")
    result = bill(merged(weights), zoo / "zoo-base", folder)
    assert result.warnings == [f"{folder / 'notes'} is neither an adapter nor a checkpoint and was ignored"]
    assert result.dictionary.keys() == weights.keys()
