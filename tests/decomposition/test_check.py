"""A dictionary measured without a target, against expanded changes and plain counting."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from unmerge.certificate.duplicates import ALIKE
from unmerge.certificate.evidence import BLIND
from unmerge.checkpoints.write_adapter import write_adapter
from unmerge.core.records import write_json
from unmerge.decomposition import open_base, open_dictionary
from unmerge.decomposition.check import COMPONENTS, DictionaryCheck, check_dictionary
from unmerge.vectors import LowRank

SHAPES = {
    "model.layers.0.mlp.up_proj.weight": (30, 16),
    "model.layers.0.self_attn.k_proj.weight": (8, 16),
    "model.layers.1.mlp.up_proj.weight": (30, 16),
}


def adapter(rank: int, tensors: int = 3) -> dict[str, LowRank]:
    return {name: LowRank(torch.randn(out, rank), torch.randn(rank, into)) for name, (out, into) in list(SHAPES.items())[:tensors]}


def checked(folder: Path, atoms: dict[str, dict[str, LowRank]]) -> DictionaryCheck:
    for name, deltas in atoms.items():
        write_adapter(folder / name, deltas, "base")
    return check_dictionary(open_dictionary([folder], None))


@pytest.fixture
def atoms() -> dict[str, dict[str, LowRank]]:
    """Two unrelated ones, one twice (at another scale), a variant of the other."""
    torch.manual_seed(0)
    one, other = adapter(2), adapter(4, 2)
    copy = {name: delta.scaled(-1.5) for name, delta in one.items()}
    variant = {name: LowRank(delta.b + torch.randn_like(delta.b), delta.a) for name, delta in other.items()}
    return {"copy": copy, "one": one, "other": other, "variant": variant}


def test_against_expanded(atoms: dict[str, dict[str, LowRank]], tmp_path: Path) -> None:
    check = checked(tmp_path, atoms)
    dense = np.array(
        [
            np.concatenate([(atom[name].dense() if name in atom else torch.zeros(shape)).double().numpy().ravel() for name, shape in SHAPES.items()])
            for atom in atoms.values()
        ]
    )
    norms = np.linalg.norm(dense, axis=1)
    cosines = dense @ dense.T / np.outer(norms, norms)
    assert [atom.name for atom in check.atoms] == list(atoms)
    np.testing.assert_allclose([atom.norm for atom in check.atoms], norms, rtol=1e-5)
    assert [(atom.rank, atom.tensors) for atom in check.atoms] == [(2, 3), (2, 3), (4, 2), (4, 2)]
    names = list(atoms)
    expected = {(names[i], names[j]): cosines[i, j] for i, j in itertools.combinations(range(4), 2) if abs(cosines[i, j]) >= ALIKE}
    assert {(pair.first, pair.second): pair.cosine for pair in check.pairs} == pytest.approx(expected, abs=1e-6)
    assert [(pair.first, pair.second, pair.duplicate) for pair in check.pairs] == [("copy", "one", True), ("other", "variant", False)]
    assert check.families == [["copy", "one"], ["other", "variant"]]
    assert check.condition_number is None or check.condition_number > 1e6  # the copy is in float32
    apart = checked(tmp_path / "apart", {name: atoms[name] for name in ("one", "other", "variant")})
    assert apart.condition_number == pytest.approx(np.linalg.cond(cosines[1:, 1:]), rel=1e-4)


def test_blind_tensors(atoms: dict[str, dict[str, LowRank]], tmp_path: Path) -> None:
    check = checked(tmp_path, atoms)
    assert check.median_rank == 2.0  # 2 in six changes, 4 in four
    for tensor in check.tensors:
        out, into = SHAPES[tensor.tensor]
        assert tensor.shape == (out, into)
        assert tensor.components == sum((count * check.median_rank) ** 2 / (out * into) < BLIND for count in range(1, 50))
    assert [tensor.summed_rank for tensor in check.tensors] == [12, 12, 4]
    # 8 x 16 at rank 2: exactly filled by four
    assert [tensor.components for tensor in check.tensors] == [7, 3, 7]
    assert check.blind == [tensor.tensor for tensor in check.tensors if "k_proj" in tensor.tensor]
    assert COMPONENTS == 5


def test_full_checkpoints_and_adapters(zoo: Path, tmp_path: Path) -> None:
    """A checkpoint has no rank; a tensor that an atom leaves out is left out for all, and named."""
    tuned = tmp_path / "atoms" / "tuned"
    shutil.copytree(zoo / "zoo-base", tuned)
    weights = load_file(tuned / "model.safetensors")
    weights["model.layers.0.mlp.up_proj.weight"] *= 1.5
    weights["model.extra.weight"] = torch.ones(3, dtype=torch.bfloat16)
    save_file(weights, tuned / "model.safetensors", metadata={"format": "pt"})
    shutil.copytree(zoo / "known" / "pirate", tmp_path / "atoms" / "pirate")
    base = open_base(zoo / "zoo-base")
    check = check_dictionary(open_dictionary([tmp_path / "atoms"], base), base)
    assert {atom.name: (atom.rank, atom.tensors) for atom in check.atoms} == {"pirate": (8, 28), "tuned": (None, 1)}
    assert [(skip.tensor, skip.reason) for skip in check.skipped] == [("model.extra.weight", "tuned: only the target has it")]
    dense = check_dictionary(open_dictionary([tuned], base), base)
    assert (dense.median_rank, dense.blind) == (None, [])
    assert {tensor.components for tensor in dense.tensors} == {None}


def test_zoo(zoo: Path) -> None:
    base = open_base(zoo / "zoo-base")
    check = check_dictionary(open_dictionary([zoo / "known"], base), base)
    assert (check.pairs, check.families, check.warnings, check.median_rank) == ([], [], [], 8.0)
    assert check.condition_number is not None
    assert check.condition_number < 2
    # eight of rank 8 fill it: 64^2 is half of 64 x 128
    assert {tensor.shape: tensor.components for tensor in check.tensors}[(64, 128)] == 7
    assert check.blind == []


def test_singular_dictionary_is_written_as_plain_json(atoms: dict[str, dict[str, LowRank]], tmp_path: Path) -> None:
    """An infinite condition number has no place in JSON; an atom that changes nothing is warned of."""
    nothing = {name: delta.scaled(0.0) for name, delta in atoms["one"].items()}
    check = checked(tmp_path / "atoms", {"one": atoms["one"], "two": atoms["one"], "nothing": nothing})
    assert check.condition_number is None
    assert check.warnings == ["nothing changes nothing; it is not looked for"]
    write_json(tmp_path / "check.json", check)
    written = json.loads((tmp_path / "check.json").read_text(), parse_constant=pytest.fail)
    assert written["schema"] == "unmerge/dictionary/1"
    assert written["condition_number"] is None
