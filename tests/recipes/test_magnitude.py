"""Merges whose masks were decided by magnitude or variance: ties, breadcrumbs, sce, ram; recovered, and beside unknown atoms."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from unmerge.checkpoints import Checkpoint, Difference
from unmerge.decomposition import open_base, open_dictionary, open_vector
from unmerge.recipes.case import Case
from unmerge.recipes.forward import forward
from unmerge.recipes.inputs import Inputs
from unmerge.recipes.magnitude.known_bands import known_bands
from unmerge.recipes.magnitude.sums import Sums
from unmerge.recipes.methods import DETERMINED
from unmerge.recipes.recipe import BASE, Input, Recipe

Merged = Callable[..., Path]
NAMES = ("json_object", "parity", "question")


@pytest.fixture(scope="module")
def inputs(zoo: Path, tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    base = open_base(zoo / "zoo-base")
    return Inputs(base, open_dictionary([zoo / "known"], base), tmp_path_factory.mktemp("inputs"))


@pytest.fixture(scope="module")
def case_of(inputs: Inputs) -> Callable[[Path], Case]:
    def case(folder: Path) -> Case:
        target = open_vector(folder, inputs.base)
        assert isinstance(target, Difference)
        return Case.of(inputs, target.tuned, changed(target.tuned, inputs.base))

    return case


def changed(target: Checkpoint, base: Checkpoint) -> list[str]:
    return [
        tensor
        for tensor in target.shapes
        if base.holds(tensor) and not torch.equal(target.read(tensor), base.read(tensor).to(target.read(tensor).dtype))
    ]


def models(folder: Path, settings: Sequence[dict[str, Any]], names: Sequence[str] = NAMES) -> list[dict[str, Any]]:
    return [{"model": str(folder / name), "parameters": dict(own)} for name, own in zip(names, settings, strict=False)]


def trimmed(weights: Sequence[float], densities: Sequence[float], **more: float) -> list[dict[str, float]]:
    return [{"weight": weight, "density": density, **more} for weight, density in zip(weights, densities, strict=True)]


#: method, dtype, settings of each atom, settings of all
MERGES: dict[str, tuple[str, str, list[dict[str, float]], dict[str, Any]]] = {
    "ties, equal weights": ("ties", "float32", trimmed((0.46,) * 3, (0.89, 0.89, 0.3)), {}),
    "ties, lambda": ("ties", "bfloat16", trimmed((0.54, 0.9, 0.33), (0.4, 0.7, 0.25)), {"lambda": 0.7}),
    "ties, not normalised, rescaled": ("ties", "float32", trimmed((0.54, 0.9, 0.33), (0.4, 0.7, 0.25)), {"normalize": False, "rescale": True}),
    "breadcrumbs_ties, many digits": ("breadcrumbs_ties", "float32", trimmed((0.652905571814, 0.258508196838), (0.74, 0.6), gamma=0.03), {}),
    "breadcrumbs, lambda": ("breadcrumbs", "float32", trimmed((0.5, 0.9, 0.3), (0.5, 0.3, 0.6), gamma=0.02), {"lambda": 0.8}),
    "breadcrumbs, a negative weight": ("breadcrumbs", "bfloat16", trimmed((0.8, -0.6), (0.5, 0.3), gamma=0.02), {}),
    "breadcrumbs_ties, int8_mask": ("breadcrumbs_ties", "bfloat16", trimmed((1.1, 0.5, 0.72), (0.2, 0.4, 0.7), gamma=0.02), {"int8_mask": True}),
    "sce": ("sce", "bfloat16", [{}] * 3, {"select_topk": 0.35}),
    "ram": ("ram", "float32", [{}] * 3, {"epsilon": 0.002}),
    "ramplus_tl": ("ramplus_tl", "float32", [{}] * 2, {"r": 0.3, "epsilon": 0.001}),
}


@pytest.mark.parametrize("name", MERGES)
def test_recovered(name: str, zoo: Path, merged: Merged, case_of: Callable[[Path], Case]) -> None:
    method, dtype, settings, shared = MERGES[name]
    case = case_of(merged({}, method, dtype=dtype, models=models(zoo / "known", settings), parameters=shared))
    (found,) = DETERMINED[method](case, NAMES[: len(settings)])
    assert found.method == method
    assert case.identical(found) >= 0.999
    normalised = {"normalize": method == "ties", **shared}["normalize"]
    assert {"normalize": method == "ties", **found.parameters}["normalize"] == normalised
    for key, value in shared.items():
        if key not in ("normalize", "int8_mask"):
            assert found.parameters[key] == pytest.approx(value, rel=1e-3)
    scale = sum(own["weight"] for own in settings) / sum(found.setting(atom, "weight") for atom in found.atoms) if normalised else 1
    for atom, own in zip(NAMES, settings, strict=False):
        if own:
            assert found.setting(atom, "weight") * scale == pytest.approx(own["weight"], rel=1e-6 if dtype == "float32" else 4e-3)
            assert found.setting(atom, "density") == pytest.approx(own["density"], abs=1e-3)


def test_other_methods_give_up(zoo: Path, merged: Merged, case_of: Callable[[Path], Case]) -> None:
    case = case_of(merged({}, "dare_linear", models=models(zoo / "known", trimmed((0.5, 0.8), (0.5, 0.5)))))
    for method in ("ties", "breadcrumbs", "breadcrumbs_ties", "sce", "ram", "ramplus_tl"):
        assert all(case.identical(recipe) < 0.5 for recipe in DETERMINED[method](case, NAMES[:2])), method


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("elected", "normalised", "factor"), list(itertools.product((True, False), (True, False), (1.0, 0.7))))
def test_sums_are_mergekits(dtype: torch.dtype, elected: bool, normalised: bool, factor: float) -> None:
    torch.manual_seed(0)
    base = torch.randn(64, 32).to(dtype)
    tuned = [base + (0.05 * torch.randn(64, 32)).to(dtype) for _ in range(4)]
    weights = torch.rand(3, 4, dtype=torch.float64) + 0.2
    sums = Sums(torch.stack([(atom - base).flatten() for atom in tuned]), base.flatten(), base.flatten(), elected, normalised)
    for row, made in zip(weights, sums.made(weights, factor), strict=True):
        own = tuple(Input(str(place), {"weight": float(weight)}) for place, weight in enumerate(row))
        shared = {"normalize": normalised, "lambda": factor}
        recipe = Recipe("ties" if elected else "task_arithmetic", own, BASE, shared, str(dtype).removeprefix("torch."))
        tensors: dict[str, Tensor] = {BASE: base, **{str(place): atom for place, atom in enumerate(tuned)}}
        assert torch.equal(made, forward(recipe, tensors, "weight", 0.0).flatten())


@pytest.fixture(scope="module")
def mixed(zoo: Path, merged: Merged, case_of: Callable[[Path], Case]) -> Callable[[str, str], Case]:
    def case(method: str, dtype: str) -> Case:
        known = models(zoo / "known", trimmed((0.9, 0.5), (0.5, 0.3)))
        unknown = models(zoo / "unknown", trimmed((0.7,), (0.4,)), ("plural",))
        return case_of(merged({}, method, dtype=dtype, models=[*known, *unknown]))

    return case


@pytest.mark.parametrize(("method", "dtype"), [("ties", "bfloat16"), ("breadcrumbs", "float32")])
def test_beside_something_unknown(method: str, dtype: str, mixed: Callable[[str, str], Case]) -> None:
    found = known_bands(mixed(method, dtype), NAMES[:2])
    assert found is not None
    assert found.method == method
    scale = 1.4 if method == "ties" else 1.0
    assert [weight * scale for weight in found.weights] == pytest.approx([0.9, 0.5], rel=0.05)
    assert found.density == pytest.approx([0.5, 0.3], rel=0.05)
    assert found.explained > max(found.decoys.values()) + 0.1


def test_nothing_decided_by_magnitude(zoo: Path, merged: Merged, case_of: Callable[[Path], Case]) -> None:
    case = case_of(merged({}, "task_arithmetic", models=models(zoo / "known", [{"weight": 0.5}] * 3)))
    assert known_bands(case, NAMES[:2]) is None
