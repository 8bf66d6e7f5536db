"""What is there for large models: some modules only, the dictionary's products from the run before, wide decompositions on the zoo."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from unmerge.core import remembered
from unmerge.core.errors import BadInput
from unmerge.core.settings import CACHE
from unmerge.decomposition import decompose, open_base, open_dictionary, open_vector
from unmerge.decomposition.dictionary import only
from unmerge.vectors import Stack

WEIGHTS = {"pirate": 0.7, "reversal": 0.5}
MERGES = [("task_arithmetic", "bfloat16", {}), ("dare_linear", "float32", {"density": 0.6})]


@pytest.mark.parametrize(("method", "dtype", "parameters"), MERGES)
def test_wide_decompositions_name_the_same_atoms(
    method: str, dtype: str, parameters: dict[str, float], zoo: Path, merged: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The zoo's matrices as if they were large: leading triples, blocks of noise and float32 throughout."""
    base = open_base(zoo / "zoo-base")
    dictionary = open_dictionary([zoo / "known"], base).only("self_attn")
    target = only(open_vector(merged(WEIGHTS, method, dtype=dtype, parameters=parameters), base), "self_attn")
    whole = decompose(target, dictionary, base)
    monkeypatch.setattr("unmerge.vectors.delta.LARGE", 1000)
    part = decompose(target, dictionary, base)
    assert {found.name for found in part.components} == {found.name for found in whole.components} == set(WEIGHTS)
    assert part.test is not None
    assert whole.test is not None
    assert part.test.estimator == whole.test.estimator
    for found in part.components:
        other = whole.coefficient(found.name)
        assert other is not None
        assert found.coefficient == pytest.approx(other, rel=0.02)


def test_some_modules_alone(zoo: Path, merged: Callable[..., Path]) -> None:
    base = open_base(zoo / "zoo-base")
    dictionary = open_dictionary([zoo / "known"], base).only("self_attn")
    target = only(open_vector(merged(WEIGHTS), base), "self_attn")
    assert all("self_attn" in tensor for vector in (target, *dictionary.atoms) for tensor in vector.shapes)
    result = decompose(target, dictionary, base, "nnls")
    assert result.modules == "self_attn"
    assert {component.name for component in result.components} >= set(WEIGHTS)
    with pytest.raises(BadInput, match=r"--modules: expected a part of the names of tensors \(model.* found q_prog; did you mean q_proj\?"):
        dictionary.only("q_prog")
    with pytest.raises(BadInput, match=r"--modules: expected a regular expression, found \( \(missing"):
        dictionary.only("(")


def test_products_are_kept_from_one_run_to_the_next(zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE, str(tmp_path / "cache"))
    monkeypatch.setattr(remembered, "_SETTLED", -1.0)
    shutil.copytree(zoo / "known", tmp_path / "known")
    taken: list[int] = []
    plain = Stack.gram
    monkeypatch.setattr(Stack, "gram", lambda stack: (taken.append(1), plain(stack))[1])

    def run() -> tuple[int, np.ndarray]:
        taken.clear()
        dictionary = open_dictionary([tmp_path / "known"], None)
        result = decompose(open_vector(zoo / "known" / "pirate", None), dictionary, method="nnls")
        return len(taken), np.array([result.coefficient(atom.name) or 0.0 for atom in dictionary.atoms])

    first, again = run(), run()
    assert first[0] > again[0] == 0
    np.testing.assert_allclose(again[1], first[1], atol=1e-9)
    # an adapter's scale is in its configuration: the weights' own hash would not do
    config = tmp_path / "known" / "reversal" / "adapter_config.json"
    config.write_text(config.read_text().replace('"lora_alpha": 8', '"lora_alpha": 16'))
    assert run()[0] > 0
