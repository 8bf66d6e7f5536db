"""The certificate on real merges of the zoo's adapters: who is in there, with which coefficient, and how much else is."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from unmerge.checkpoints.write_adapter import write_adapter
from unmerge.core.records import write_json
from unmerge.decomposition import Decomposition, decompose, open_base, open_dictionary, open_vector
from unmerge.decomposition.findings import BY_CORRELATION, BY_SUBSPACES
from unmerge.vectors import LowRank

Merged = Callable[..., Path]
RANK = 8
"""Of every adapter of the zoo."""
LAYERS, MODULES = 4, 7


@dataclass(frozen=True)
class Case:
    """A merge, and what the certificate promises of it.

    Attributes:
        known, unknown: weights of the first known and unknown adapters of the zoo.
        tolerance: of the coefficients that acted, relative; None where no one coefficient acted.
        estimator: how they are measured; None where there are none.
    """

    known: tuple[float, ...]
    unknown: tuple[float, ...]
    method: str
    dtype: str
    tolerance: float | None
    estimator: str | None
    more: dict[str, Any] = field(default_factory=dict)

    def acted(self, names: list[str]) -> dict[str, float]:
        """The coefficients that acted: mergekit rounds those of task_arithmetic and dare to the merge's dtype, and divides linear's by their sum."""
        if self.method == "linear":
            total = sum(self.known) + sum(self.unknown)
            return {name: weight / total for name, weight in zip(names, self.known, strict=False)}
        rounded = torch.tensor(self.known, dtype=getattr(torch, self.dtype)).tolist()
        return dict(zip(names, rounded, strict=False))


HALF = {"parameters": {"density": 0.5}}
CASES = {
    "known task_arithmetic": Case((0.9, 0.5, 0.7), (), "task_arithmetic", "bfloat16", 0.001, "intervals"),
    "known linear": Case((0.9, 0.5, 0.7), (), "linear", "bfloat16", 0.001, "intervals"),
    "mixed task_arithmetic": Case((0.9, 0.5), (0.8, 0.6), "task_arithmetic", "bfloat16", 0.02, "oblique"),
    "mixed linear float32": Case((0.9, 0.5), (0.8, 0.6), "linear", "float32", 0.01, "oblique"),
    "mixed dare_linear": Case((0.9, 0.5), (0.8, 0.6), "dare_linear", "bfloat16", 0.05, "oblique", HALF),
    "known ties": Case((0.9, 0.5, 0.7), (), "ties", "bfloat16", None, "least squares", HALF),
    "unknown linear": Case((), (0.8, 0.6, 0.7), "linear", "bfloat16", None, None),
}
EXACT_SUMS = [name for name, case in CASES.items() if case.method in ("task_arithmetic", "linear")]


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def present(result: Decomposition) -> dict[str, float]:
    return {component.name: component.coefficient for component in result.components}


@pytest.fixture(scope="module")
def target(zoo: Path, wide_base: Path, merged: Merged) -> Callable[[str], tuple[Path, Path]]:
    """(target, base) of a case; the base is in float32 where the merge is."""

    def make(name: str) -> tuple[Path, Path]:
        case, base = CASES[name], wide_base if CASES[name].dtype == "float32" else zoo / "zoo-base"
        known = dict(zip(names_in(zoo / "known"), case.known, strict=False))
        unknown = {f"../unknown/{name}": weight for name, weight in zip(names_in(zoo / "unknown"), case.unknown, strict=False)}
        return merged(known | unknown, case.method, base=base, dtype=case.dtype, **case.more), base

    return make


@pytest.fixture(scope="module")
def certified(zoo: Path, target: Callable[[str], tuple[Path, Path]]) -> Callable[[str], Decomposition]:
    """The certificate of a case over the known adapters, made once."""
    made: dict[str, Decomposition] = {}

    def make(name: str) -> Decomposition:
        if name not in made:
            made[name] = bill(*target(name), zoo / "known")
        return made[name]

    return make


def bill(target: Path, base: Path | None, *dictionaries: Path, **more: Any) -> Decomposition:
    opened = open_base(base) if base else None
    return decompose(open_vector(target, opened), open_dictionary(dictionaries, opened), opened, **more)


@pytest.mark.parametrize("name", CASES)
def test_exactly_what_is_in_it(name: str, zoo: Path, certified: Callable[[str], Decomposition]) -> None:
    case, result, names = CASES[name], certified(name), names_in(zoo / "known")
    expected = case.acted(names)
    assert present(result).keys() == expected.keys()
    assert {entry.name for entry in result.absent} == set(names) - expected.keys()
    assert result.method == "certificate"
    assert result.test is not None
    assert result.test.hypothesis == BY_SUBSPACES
    assert result.test.level == 0.001
    assert result.test.blind == result.test.by_correlation == result.test.by_weights == []
    assert result.test.stand_ins == 0
    assert case.estimator in (None, result.test.estimator)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.tolerance])
def test_coefficients_that_acted(name: str, zoo: Path, certified: Callable[[str], Decomposition]) -> None:
    case, result = CASES[name], certified(name)
    expected = case.acted(names_in(zoo / "known"))
    assert present(result) == pytest.approx(expected, rel=case.tolerance)
    for component in result.components:
        assert component.interval is not None
        low, high = component.interval
        assert low <= expected[component.name] <= high
        assert high - low < 4 * (case.tolerance or 0) * component.coefficient, "an interval that says nothing would hold the truth as well"


@pytest.mark.parametrize("name", EXACT_SUMS)
def test_how_much_else_is_in_it(name: str, certified: Callable[[str], Decomposition]) -> None:
    case, unexplained = CASES[name], certified(name).unexplained
    assert unexplained.components == len(case.unknown)
    assert unexplained.rank == RANK * len(case.unknown)
    if case.unknown:
        assert unexplained.share > (0.3 if case.known else 0.999)
    else:
        assert unexplained.share < 0.01


def test_dare_hides_directions_but_invents_none(certified: Callable[[str], Decomposition]) -> None:
    unexplained = certified("mixed dare_linear").unexplained
    assert unexplained.components is not None
    assert 1 <= unexplained.components <= 2


def test_under_ties_no_one_coefficient_acted(certified: Callable[[str], Decomposition]) -> None:
    """What trimming leaves has a rank, but nothing there is unknown."""
    result = certified("known ties")
    assert result.test is not None
    assert result.test.trimmed
    assert result.unexplained.components is None
    assert all(not report.trimmed for name in EXACT_SUMS if (report := certified(name).test))


def test_detection_limits(certified: Callable[[str], Decomposition]) -> None:
    """Smaller than any component that is there, so that nothing of their size was missed; larger where dare hides more."""
    limits = {name: [entry.detection_limit for entry in certified(name).absent] for name in ("mixed task_arithmetic", "mixed dare_linear")}
    clean, masked = ([limit for limit in each if limit is not None] for each in limits.values())
    assert len(clean) == len(masked) == 8
    assert min(clean) > 0
    assert max(clean) < 0.1 < min(masked)
    assert max(masked) < 0.5


def test_json(certified: Callable[[str], Decomposition], tmp_path: Path) -> None:
    """Everything that the certificate knows is in the record, which reads back as the same result."""
    result = certified("mixed task_arithmetic")
    write_json(tmp_path / "bill.json", result)
    raw = json.loads((tmp_path / "bill.json").read_text())
    assert Decomposition.model_validate(raw) == result
    for component in raw["components"]:
        assert component["interval"][0] < component["coefficient"] < component["interval"][1]
        assert 0.99 < component["containment"] <= 1
        assert 0 <= component["p_value"] <= component["q_value"] <= 0.001
        assert component["group"] == []
        assert 0.99 < component["agreement"] <= 1
        assert len(component["by_tensor"]) == LAYERS * MODULES
    for entry in raw["absent"]:
        assert entry["containment"] < 0.3
        assert entry["p_value"] > 0.05
        assert entry["detection_limit"] > 0
        assert entry["variant_of"] is None
        assert entry["coefficient"] == 0
    unexplained = raw["unexplained"]
    assert 0 < unexplained["rounding_share"] < 0.01 < unexplained["share"] < 1
    assert (unexplained["rank"], unexplained["components"]) == (2 * RANK, 2)
    assert raw["solver"] is None
    assert raw["test"] == {
        "hypothesis": BY_SUBSPACES,
        "level": 0.001,
        "confidence": 0.95,
        "estimator": "oblique",
        "blind": [],
        "by_correlation": [],
        "by_weights": [],
        "trimmed": False,
        "stand_ins": 0,
        "svd_error": None,
        "rounding_order": None,  # something unknown is in the target
        "rounding_identical": None,
        "rounding_ties": [],
        "rounding_sequence": [],
    }


def continued(adapter: Path, out: Path, size: float) -> Path:
    """The adapter after a little more training: its factors beside a change of rank 4, ``size`` times its norm in every tensor."""
    atom = open_vector(adapter, None)
    torch.manual_seed(0)
    deltas = {}
    for tensor in atom.shapes:
        delta = atom.delta(tensor)
        assert isinstance(delta, LowRank)
        b, a = torch.randn(delta.shape[0], 4), torch.randn(4, delta.shape[1])
        b *= size * delta.dense().norm() / (b @ a).norm()
        deltas[tensor] = LowRank(torch.cat([delta.b, b], 1), torch.cat([delta.a, a], 0))
    write_adapter(out / "continued", deltas, "zoo-base")
    return out


@pytest.mark.parametrize(("size", "told"), [(0.5, True), (0.003, False)])
def test_an_atom_and_its_continued_training(
    size: float, told: bool, zoo: Path, target: Callable[[str], tuple[Path, Path]], certified: Callable[[str], Decomposition], tmp_path: Path
) -> None:
    """At a cosine of .89 the variant is told from what is there; at one that rounding blurs to 1 the two are a group."""
    name = names_in(zoo / "known")[0]
    result = bill(*target("known task_arithmetic"), zoo / "known", continued(zoo / "known" / name, tmp_path, size))
    alone = present(certified("known task_arithmetic"))
    (one,) = [component for component in result.components if component.name in (name, "continued")]
    assert {component.name for component in result.components} - {"continued", name} == alone.keys() - {name}
    assert one.coefficient == pytest.approx(alone[name], rel=0.001)
    variants = {entry.name: entry.variant_of for entry in result.absent if entry.variant_of}
    if told:
        assert (one.name, one.group) == (name, [])
        assert variants == {"continued": name}
    else:
        assert {one.name, *one.group} == {name, "continued"}
        assert variants == {}
        assert {"continued", name}.isdisjoint(entry.name for entry in result.absent)


def test_adapters_combined_by_peft(zoo: Path, tmp_path: Path) -> None:
    """``cat`` puts factors side by side: no noise, so coefficients are exact beside something unknown."""
    folders = [*sorted((zoo / "known").iterdir())[:2], min((zoo / "unknown").iterdir())]
    weights = dict(zip([folder.name for folder in folders], (0.9, 0.5, 0.8), strict=True))
    whole = AutoModelForCausalLM.from_pretrained(zoo / "zoo-base", dtype=torch.float32)
    model = PeftModel.from_pretrained(whole, folders[0], adapter_name=folders[0].name)
    for folder in folders[1:]:
        model.load_adapter(str(folder), adapter_name=folder.name)
    model.add_weighted_adapter(list(weights), list(weights.values()), "combined", combination_type="cat")
    model.save_pretrained(str(tmp_path), selected_adapters=["combined"])
    result = bill(tmp_path / "combined", None, zoo / "known")
    assert present(result) == pytest.approx({folder.name: weights[folder.name] for folder in folders[:2]}, rel=1e-5)
    for component in result.components:
        assert component.containment == pytest.approx(1)
        assert component.interval is not None
        assert component.interval[0] <= weights[component.name] <= component.interval[1]
    assert result.test is not None
    assert result.test.estimator == "oblique"
    assert (result.unexplained.rank, result.unexplained.components) == (RANK, 1)
    assert result.unexplained.rounding_share is None


@pytest.mark.parametrize("space", ["layer", "nonzero", "compressed"])
def test_spaces_without_subspaces_test_by_correlation(space: str, zoo: Path, target: Callable[[str], tuple[Path, Path]]) -> None:
    result = bill(*target("mixed task_arithmetic"), zoo / "known", space=space)
    names = names_in(zoo / "known")
    assert present(result).keys() == set(names[:2])
    assert result.test is not None
    assert result.test.hypothesis == BY_CORRELATION
    assert result.test.by_correlation == names
    assert result.test.estimator == "least squares"
    acted = CASES["mixed task_arithmetic"].acted(names)
    for component in result.components:
        assert component.q_value is not None
        assert component.q_value <= result.test.level
        assert component.containment is None
        assert component.interval is None
    assert present(result) == pytest.approx({name: acted[name] for name in names[:2]}, rel=0.2), "unknown components are not projected off here"
    for entry in result.absent:
        assert entry.p_value is not None
        assert entry.p_value > 0.05
        assert entry.detection_limit is not None
        assert entry.detection_limit < min(acted.values())


@pytest.mark.parametrize("place", [0, 5])
def test_a_dictionary_of_one_atom(place: int, zoo: Path, target: Callable[[str], tuple[Path, Path]]) -> None:
    """Relatives are made up for it to be compared with: present it is named, absent it is not."""
    name = names_in(zoo / "known")[place]
    result = bill(*target("known task_arithmetic"), zoo / "known" / name)
    acted = CASES["known task_arithmetic"].acted(names_in(zoo / "known"))
    expected = {name: acted[name]} if name in acted else {}
    assert present(result) == pytest.approx(expected, rel=0.02)
    assert [entry.name for entry in result.absent] == ([] if expected else [name])
    assert result.test is not None
    assert result.test.stand_ins >= 4
    assert result.unexplained.components == 3 - len(expected)
