"""Controls are as large as the component and are not the component."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from unmerge.decomposition import open_vector
from unmerge.vectors import Dense, Held, singular_values
from unmerge.verification.controls import absent_atom, length, random_direction, shuffled_modules
from unmerge.verification.predict import Found
from unmerge.verification.removal import substitutes


def test_a_random_direction_has_the_spectrum_and_not_the_direction(zoo: Path) -> None:
    atom = open_vector(zoo / "known" / "pirate", None)
    random = random_direction(atom, 0)
    assert random.shapes == atom.shapes
    for tensor in atom.shapes:
        torch.testing.assert_close(singular_values(random.delta(tensor)), singular_values(atom.delta(tensor)), rtol=1e-4, atol=1e-6)
        one, other = (vector.delta(tensor).dense().flatten() for vector in (atom, random))
        assert abs(float(torch.nn.functional.cosine_similarity(one, other, dim=0))) < 0.1
    again, different = random_direction(atom, 0), random_direction(atom, 1)
    tensor = next(iter(atom.shapes))
    assert torch.equal(again.delta(tensor).dense(), random.delta(tensor).dense())
    assert not torch.allclose(different.delta(tensor).dense(), random.delta(tensor).dense())


def test_a_random_direction_of_what_has_no_factors() -> None:
    torch.manual_seed(0)
    atom = Held("dense", {"matrix": Dense(torch.randn(5, 7)), "bias": Dense(torch.randn(6))})
    random = random_direction(atom, 3)
    torch.testing.assert_close(singular_values(random.delta("matrix")), singular_values(atom.delta("matrix")))
    torch.testing.assert_close(random.delta("bias").dense().norm(), atom.delta("bias").dense().norm())
    for tensor in atom.shapes:
        assert not torch.allclose(random.delta(tensor).dense(), atom.delta(tensor).dense())


def test_shuffled_modules_all_move(zoo: Path) -> None:
    atom = open_vector(zoo / "known" / "pirate", None)
    shuffled = shuffled_modules(atom, 0)
    assert shuffled.shapes == atom.shapes
    assert length(shuffled) == pytest.approx(length(atom))
    changes = {tensor: atom.delta(tensor).dense() for tensor in atom.shapes}
    sources = [next(other for other, values in changes.items() if torch.equal(values, shuffled.delta(tensor).dense())) for tensor in shuffled.shapes]
    assert sorted(sources) == sorted(changes)
    assert not [tensor for tensor, origin in zip(shuffled.shapes, sources, strict=True) if tensor == origin]


def test_what_is_alone_of_its_shape_is_left_out() -> None:
    atom = Held("atom", {"a": Dense(torch.ones(2, 2)), "b": Dense(torch.zeros(2, 2)), "alone": Dense(torch.ones(3))})
    assert shuffled_modules(atom, 0).shapes.keys() == {"a", "b"}


def test_every_control_is_as_long_as_the_component(zoo: Path) -> None:
    names = ["pirate", "maximum", "parity"]
    atom, *others = (open_vector(zoo / "known" / name, None) for name in names)
    absent = {other.name: other for other in others}
    made = substitutes(Found(atom, 0.6, ("pirate",)), absent, 0)
    assert list(made) == ["random direction", "absent atom", "shuffled modules"]
    assert made["absent atom"].atom in absent
    for control in made.values():
        assert control.coefficient * length(control.vector) == pytest.approx(0.6 * length(atom), rel=1e-4)
    assert {absent_atom(absent, seed).name for seed in range(20)} == absent.keys()
    assert "absent atom" not in substitutes(Found(atom, 0.6, ("pirate",)), {}, 0)
