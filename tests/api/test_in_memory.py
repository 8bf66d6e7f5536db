"""Task vectors in memory: two state dicts get what their files get, and nothing of them is written to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import unmerge
from unmerge.checkpoints import checkpoint_in_memory
from unmerge.decomposition import Decomposition

#: of the target and of its base
States = tuple[dict[str, Tensor], dict[str, Tensor]]

RECIPE = {"pirate": 0.9, "json_object": 0.6}


@pytest.fixture(scope="module")
def target(merged: Callable[..., Path]) -> Path:
    """Merged in bfloat16 by mergekit."""
    return merged(RECIPE)


@pytest.fixture(scope="module")
def states(zoo: Path, target: Path) -> States:
    """The target's and the base's tensors."""
    return load_file(target / "model.safetensors"), load_file(zoo / "zoo-base" / "model.safetensors")


@pytest.fixture(scope="module")
def dictionary(zoo: Path) -> unmerge.Dictionary:
    return unmerge.Dictionary.open(zoo / "known", unmerge.open_model(zoo / "zoo-base"))


@pytest.fixture(scope="module")
def from_files(target: Path, zoo: Path, dictionary: unmerge.Dictionary) -> Decomposition:
    return unmerge.decompose(target, dictionary, zoo / "zoo-base")


def numbers(result: Decomposition) -> dict[str, object]:
    """What is found, without where it came from."""
    told = result.model_dump(mode="json")
    return {key: told[key] for key in ("components", "absent", "unexplained", "test", "tensors", "entries", "reconstruction_error", "skipped")}


def test_two_state_dicts_get_the_certificate_of_their_files(states: States, dictionary: unmerge.Dictionary, from_files: Decomposition) -> None:
    result = unmerge.decompose(unmerge.task_vector(*states), dictionary, states[1])
    assert numbers(result) == numbers(from_files)
    assert result.test is not None
    assert result.test.estimator == "intervals"  # the grid of the base's weights was known
    assert {component.name for component in result.components} == RECIPE.keys()
    assert result.target.path == "in memory"


def test_a_dictionary_in_memory_names_the_same(states: States, dictionary: unmerge.Dictionary, from_files: Decomposition, tmp_path: Path) -> None:
    """With a cache, whose key is the content of the changes."""
    vectors = [unmerge.task_vector({tensor: atom.delta(tensor) for tensor in atom.shapes}, name=atom.name) for atom in dictionary.atoms]
    held = unmerge.Dictionary.of(vectors)
    for _ in range(2):
        result = unmerge.decompose(unmerge.task_vector(*states), held, states[1], cache=tmp_path)
        assert [(one.name, one.coefficient) for one in result.components] == [
            (one.name, pytest.approx(one.coefficient, abs=1e-3)) for one in from_files.components
        ]
    assert len(list((tmp_path / "products").iterdir())) == 1
    assert result.dictionary["pirate"].sha256.keys() == {"changes"}
    assert unmerge.Dictionary.of([vectors[0], unmerge.task_vector(vectors[1], name="other")]).names == (vectors[0].name, "other")
    with pytest.raises(unmerge.BadInput, match=f"in memory: expected a different name for every atom, found a second {vectors[0].name}"):
        unmerge.Dictionary.of([vectors[0], vectors[0]])


def test_the_models_weights_are_not_written_to(states: States, dictionary: unmerge.Dictionary, tmp_path: Path) -> None:
    before = [{name: tensor.clone() for name, tensor in state.items()} for state in states]
    result = unmerge.decompose(unmerge.task_vector(*states), dictionary, states[1])
    record = result.ablate("pirate", out=tmp_path / "without")
    assert all(torch.equal(tensor, state[name]) for state, held in zip(states, before, strict=True) for name, tensor in held.items())
    assert (record.form, record.removed.keys()) == ("state dict", {"pirate"})
    without = load_file(tmp_path / "without" / "model.safetensors")
    assert {name: (tensor.dtype, tensor.shape) for name, tensor in without.items()} == {
        name: (tensor.dtype, tensor.shape) for name, tensor in states[0].items()
    }
    again = unmerge.decompose(unmerge.task_vector(without, states[1]), dictionary, states[1])
    assert [component.name for component in again.components] == ["json_object"]


def test_some_modules(states: States, dictionary: unmerge.Dictionary) -> None:
    held = unmerge.Dictionary.of(
        unmerge.task_vector({tensor: atom.delta(tensor) for tensor in atom.shapes}, name=atom.name) for atom in dictionary.atoms
    )
    result = unmerge.decompose(unmerge.task_vector(*states), held, states[1], modules="q_proj", method="nnls")
    assert 0 < result.tensors < len(held.atoms[0].shapes)
    assert result.modules == "q_proj"


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({}, "in memory: expected tensors by name, found an empty mapping"),
        ({"w": 3}, "in memory, tensor w: expected a tensor with values, found a int"),
        ({"w": torch.empty(2, 2, device="meta")}, "in memory, tensor w: expected a tensor with values, found a tensor on the meta device"),
    ],
)
def test_what_is_no_state_dict(tensors: dict[str, object], said: str) -> None:
    with pytest.raises(unmerge.BadInput, match=said):
        checkpoint_in_memory(tensors)


def test_what_memory_cannot_do_is_said(states: States, zoo: Path, dictionary: unmerge.Dictionary, tmp_path: Path) -> None:
    target, base = unmerge.task_vector(*states), zoo / "zoo-base"
    with pytest.raises(unmerge.BadInput, match="expected a base to subtract from the state dict, found none"):
        unmerge.task_vector(states[0])
    broken = {name: tensor.clone() for name, tensor in states[0].items()}
    name = next(iter(dictionary.atoms[0].shapes))
    broken[name][0, 0] = torch.nan
    with pytest.raises(unmerge.BadInput, match=f"in memory, tensor {name}: expected finite weights, found NaN or infinity"):
        unmerge.decompose(unmerge.task_vector(broken, states[1]), dictionary, states[1])
    refused = "expected models and adapters on disk, for {}, found target in memory"
    with pytest.raises(unmerge.BadInput, match=refused.format("recover")):
        unmerge.recover(target, dictionary, base)
    with pytest.raises(unmerge.BadInput, match=refused.format("audit")):
        unmerge.audit(target, dictionary, base, out=tmp_path / "audit")
    changes = unmerge.task_vector({tensor: target.delta(tensor) for tensor in target.shapes})
    with pytest.raises(unmerge.BadInput, match="expected a target with weights to write without the component, found changes alone"):
        unmerge.ablate(changes, dictionary, remove={"pirate": 0.5}, out=tmp_path / "out")
    assert not list(tmp_path.iterdir())
