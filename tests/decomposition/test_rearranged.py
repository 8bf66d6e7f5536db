"""Targets whose weights are arranged otherwise than their base's: the bill is the same, and components are taken out of the files as they are."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from unmerge.checkpoints import Checkpoint
from unmerge.core.errors import BadInput
from unmerge.decomposition import decompose, open_base, open_dictionary, open_vector
from unmerge.recipes.recover import recovered
from unmerge.verification.ablate import ablate
from unmerge_lab.studies.symmetries import OPERATIONS, TOGETHER, Model, apply, plus, read_model, take_layers, write_model

WEIGHTS = {"pirate": 0.8, "json_object": 0.5, "parity": 0.35}
UNKNOWN = "sorting"
CASES = {name: (name,) for name in OPERATIONS} | TOGETHER
#: operation, whether something unknown is in the target, dtype: every step is at work once with each
SOME = [
    ("norms folded", False, torch.bfloat16),
    ("queries rescaled", False, torch.float32),
    ("permuted", True, torch.bfloat16),
    ("stream rotated", True, torch.float32),
    ("everything", False, torch.float32),
    ("everything", True, torch.bfloat16),
]


@pytest.fixture(scope="module")
def base(zoo: Path) -> Checkpoint:
    return open_base(zoo / "zoo-base")


def merged(zoo: Path, base: Checkpoint, *, unknown: bool, without: str = "") -> Model:
    known, others = (open_dictionary([zoo / half], base) for half in ("known", "unknown"))
    parts = [(known.named(name), weight) for name, weight in WEIGHTS.items() if name != without]
    return plus(read_model(base), [*parts, *([(others.named(UNKNOWN), 0.6)] if unknown else [])])


@pytest.mark.parametrize(("name", "unknown", "dtype"), SOME)
def test_components_and_coefficients(name: str, unknown: bool, dtype: torch.dtype, zoo: Path, base: Checkpoint, tmp_path: Path) -> None:
    target = write_model(apply(merged(zoo, base, unknown=unknown), CASES[name]), base, tmp_path / "target", dtype)
    result = decompose(open_vector(target, base), open_dictionary([zoo / "known"], base), base)
    assert {component.name for component in result.components} == WEIGHTS.keys()
    for component in result.components:
        assert component.coefficient == pytest.approx(WEIGHTS[component.name], rel=0.02)
        assert component.interval is not None
        assert component.interval[0] <= WEIGHTS[component.name] <= component.interval[1]
    assert result.alignment
    assert any(warning.startswith("the target is not laid out as the base is") for warning in result.warnings)
    assert result.unexplained.share < (0.25 if unknown else 0.02)


@pytest.mark.parametrize("order", [(0, 1, 1, 2, 3), (0, 2, 3)], ids=["repeated", "cut"])
def test_layers_that_moved(order: tuple[int, ...], zoo: Path, base: Checkpoint, tmp_path: Path) -> None:
    target = write_model(take_layers(merged(zoo, base, unknown=True), order), base, tmp_path / "target", torch.bfloat16)
    result = decompose(open_vector(target, base), open_dictionary([zoo / "known"], base), base)
    assert {component.name: component.coefficient for component in result.components} == pytest.approx(WEIGHTS, rel=0.02)
    assert [operation.operation for operation in result.alignment] == ["layers moved"]
    assert any("the target's layers are " + ", ".join(map(str, order)) in warning for warning in result.warnings)


def test_a_target_that_lies_as_its_base_does_has_no_alignment(zoo: Path, base: Checkpoint, tmp_path: Path) -> None:
    target = write_model(merged(zoo, base, unknown=False), base, tmp_path / "target", torch.bfloat16)
    result = decompose(open_vector(target, base), open_dictionary([zoo / "known"], base), base, "nnls")
    assert result.alignment == []
    assert result.warnings == []


@pytest.mark.parametrize("name", ["everything", "stream rotated", "stack"])
def test_ablation_works_on_the_target_as_it_is_stored(name: str, zoo: Path, base: Checkpoint, tmp_path: Path) -> None:
    """The target less a component is what the same operations make of a merge without it."""

    def made(without: str = "") -> Model:
        model = merged(zoo, base, unknown=True, without=without)
        return take_layers(model, (0, 1, 1, 2, 3)) if name == "stack" else apply(model, CASES[name])

    target = open_vector(write_model(made(), base, tmp_path / "target", torch.float32), base)
    ablate(target, [(open_dictionary([zoo / "known"], base).named("parity"), WEIGHTS["parity"])], tmp_path / "out")
    wanted, found = made("parity").weights, load_file(tmp_path / "out" / "model.safetensors")
    assert found.keys() == wanted.keys()
    for tensor, values in wanted.items():
        assert torch.allclose(found[tensor], values, atol=2e-3 * float(values.abs().max())), tensor


def test_what_would_not_be_right_is_refused(zoo: Path, base: Checkpoint, tmp_path: Path) -> None:
    target = open_vector(write_model(apply(merged(zoo, base, unknown=False), ["norms folded"]), base, tmp_path / "target", torch.float32), base)
    known = open_dictionary([zoo / "known"], base)
    with pytest.raises(BadInput, match="norm folded"):
        recovered(target, known, base)
    with pytest.raises(BadInput, match="leave out --as-adapter"):
        ablate(target, [(known.named("parity"), 0.35)], tmp_path / "out", as_adapter=True)
