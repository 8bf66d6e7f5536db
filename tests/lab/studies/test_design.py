"""STUDY.yml, and the targets that are drawn for it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch

from unmerge.core.errors import BadInput
from unmerge.decomposition.run import METHODS
from unmerge.decomposition.spaces import SPACES
from unmerge_lab.studies.design import StudyDesign, Zoo
from unmerge_lab.studies.targets import EQUAL, LEAST, MOST, Target, targets

DEFAULT = Path(__file__).parents[3] / "studies" / "zoo.yml"


@pytest.fixture(scope="module")
def drawn() -> list[Target]:
    design = StudyDesign.read(DEFAULT)
    return targets(design, design.open_zoo())


def test_default_design(drawn: list[Target]) -> None:
    """At least 24 merges a group; every merge with 2 to 5 components, weighted alike and not, in both dtypes, from three seeds."""
    design = StudyDesign.read(DEFAULT)
    assert set(design.cells) == {(space, method) for space in SPACES for method in METHODS}
    assert len({target.name for target in drawn}) == len(drawn) == 3 * (5 * 2 * 3 + 3 * 3)
    merges = [target for target in drawn if not target.is_adapter]
    assert Counter(target.group for target in merges) == dict.fromkeys(("known", "mixed", "unknown"), 30)
    for group in ("known", "mixed", "unknown"):
        for merge in design.merges:
            some = [target for target in merges if (target.group, target.merge) == (group, merge)]
            assert {len(target.weights) for target in some} == {2, 3, 4, 5}
            assert {target.weighting for target in some} == {"equal", "unequal"}
            assert {target.dtype for target in some} == {"float32", "bfloat16"}
            assert {target.seed for target in some} == {0, 1, 2}
    assert len({tuple(target.weights.items()) for target in drawn}) > 0.9 * len(drawn)


def test_groups(drawn: list[Target]) -> None:
    zoo = StudyDesign().open_zoo()
    for target in drawn:
        inside = [name for name in target.weights if name in zoo.known]
        assert list(target.known) == inside
        assert set(target.weights) <= {*zoo.known, *zoo.unknown}
        count = len(target.weights)
        assert len(inside) in {"known": {count}, "mixed": {count // 2, (count + 1) // 2}, "unknown": {0}}[target.group]
        values = set(target.weights.values())
        assert values == {EQUAL} if target.weighting == "equal" else all(LEAST <= value <= MOST and value == round(value, 2) for value in values)
    halves = {len(target.known) for target in drawn if target.group == "mixed" and len(target.weights) == 5}
    assert halves == {2, 3}


def test_draw_is_of_the_seed_alone(drawn: list[Target]) -> None:
    """Another group, another method and another order leave a target as it is."""
    design = StudyDesign.read(DEFAULT)
    again = targets(design.model_copy(update={"methods": ["nnls"], "groups": ["mixed"]}), design.open_zoo())
    assert again == [target for target in drawn if target.group == "mixed"]


def test_everything_draws_anew() -> None:
    """Seed, repeat, dtype, merge and group: each gives other components."""
    design = StudyDesign(components=[5], repeats=3, seeds=[0, 1], merges={"ties": {}, "linear": {}}, adapters={"cat": {}})  # type: ignore[dict-item]
    drawn = targets(design, design.open_zoo())
    assert len({target.name for target in drawn}) == len(drawn) == 3 * (2 * 2 + 1) * 3 * 2
    for group in design.groups:
        some = [tuple(target.weights.items()) for target in drawn if target.group == group]
        assert len(set(some)) == len(some)


def test_acted() -> None:
    weights = {"a": 0.3, "b": 0.9, "u": 0.6}

    def acted(merge: str, dtype: str) -> dict[str, float] | None:
        return Target("mixed", merge, False, dtype, 0, 0, "unequal", weights, ("a", "b")).acted()

    rounded = {name: float(torch.tensor(weights[name]).bfloat16()) for name in "ab"}
    assert rounded["a"] == 0.30078125  # 77 / 256
    assert acted("task_arithmetic", "bfloat16") == acted("dare_linear", "bfloat16") == acted("extract", "bfloat16") == rounded
    assert acted("task_arithmetic", "float32") == acted("cat", "float32") == pytest.approx({"a": 0.3, "b": 0.9})
    assert acted("linear", "bfloat16") == pytest.approx({"a": 0.3 / 1.8, "b": 0.5})
    assert acted("ties", "float32") is None
    assert acted("dare_ties", "float32") is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("merges: {ties: {}}\nspeed: fast", "expected a valid speed, found Extra inputs are not permitted"),
        ("merges: {slerp: {}}", r"expected a valid merges.slerp.\[key\], found Input should be 'task_arithmetic'"),
        ("merges: {ties: {density: 2}}", "expected a valid merges.ties.density, found Input should be less than or equal to 1"),
        ("merges: {ties: {gamma: 2}}", "expected a valid merges.ties.gamma, found Extra inputs are not permitted"),
        ("merges: {ties: {}}\nmethods: [nnls, magic]", "'magic'; it is one of all, certificate, dot, "),
        ("merges: {ties: {}}\nspaces: [outer]", "'outer'; it is one of all, exact, layer, nonzero, compressed"),
        ("merges: {ties: {}}\nseeds: [1, 1]", "expected a valid seeds, found Value error, the same one twice"),
        ("merges: {ties: {}}\ncomponents: [1]", "expected a valid components.0, found Input should be greater than or equal to 2"),
        ("merges: {ties: {}}\ngroups: []", "expected a valid groups"),
        ("seeds: [0]", "expected targets to make, found neither merges nor adapters; name a merge"),
        ("[", "expected a study's design in YAML, found broken YAML"),
        ("42", "expected a valid the design"),
    ],
)
def test_bad_design(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "study.yml").write_text(text)
    with pytest.raises(BadInput, match=rf"study\.yml: .*{said}"):
        StudyDesign.read(tmp_path / "study.yml")


def test_no_design(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="expected a study's design, found No such file or directory; check the path"):
        StudyDesign.read(tmp_path / "study.yml")


def test_zoo_beside_the_design(zoo: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").symlink_to(zoo)
    (tmp_path / "study.yml").write_text("zoo: mine\nmerges: {ties: {}}")
    opened = StudyDesign.read(tmp_path / "study.yml").open_zoo()
    assert opened == Zoo(zoo.resolve(), zoo.resolve() / "zoo-base", tuple(sorted(path.name for path in (zoo / "known").iterdir())), opened.unknown)
    assert opened.adapter("pirate") == zoo / "known" / "pirate"
    assert opened.adapter("formal") == zoo / "unknown" / "formal"


def test_too_few_adapters(zoo: Path, tmp_path: Path) -> None:
    (tmp_path / "known").mkdir()
    for name in ("pirate", "parity"):
        (tmp_path / "known" / name).symlink_to(zoo / "known" / name)
    design = StudyDesign(zoo=str(tmp_path), components=[4])
    with pytest.raises(BadInput, match=r"known: expected at least 4 adapters, for targets of 4 components, found 2; give a zoo"):
        design.open_zoo()
    with pytest.raises(BadInput, match=r"unknown: expected at least 2 adapters, .* found 0"):
        design.model_copy(update={"groups": ["mixed"]}).open_zoo()
    assert design.model_copy(update={"groups": ["known"], "components": [2]}).open_zoo().known == ("parity", "pirate")
