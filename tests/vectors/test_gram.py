"""The Gram matrix of any mixture of changes against the one of the expanded vectors."""

from __future__ import annotations

import importlib
from collections.abc import Iterable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from unmerge.core.errors import BadInput
from unmerge.vectors import AllWeights, Delta, Dense, Held, LowRank, Skipped, Stack, Subtracted, gram, norm_squared

#: the module; the package's attribute of that name is the function
room = importlib.import_module("unmerge.vectors.gram")

OUT, INTO = 11, 7
Rows = NDArray[np.float64]


def made(kind: str, seed: int) -> Delta | None:
    """One change of an (OUT, INTO) matrix; its kind by a letter, a digit for the rank."""
    torch.manual_seed(seed)
    if kind == "-":
        return None
    if kind == "d":
        return Dense(torch.randn(OUT, INTO))
    if kind == "t":
        return Dense(torch.randn(INTO, OUT).T)
    if kind == "b":
        return Dense(torch.randn(OUT, INTO).bfloat16())
    if kind == "h":
        return LowRank(torch.randn(OUT, 2).bfloat16(), torch.randn(2, INTO).bfloat16())
    return LowRank(torch.randn(OUT, int(kind)), torch.randn(int(kind), INTO))


def row(delta: Delta | None) -> Rows:
    """The expanded change as one row of numbers, in float64."""
    if delta is None:
        return np.zeros(OUT * INTO)
    values = delta.b.double() @ delta.a.double() if isinstance(delta, LowRank) else delta.values.double()
    return np.asarray(values.numpy().reshape(-1))


#: atoms one by one, then the target
CASES = [
    "333 4",
    "1 1",
    "13509 2",
    "ddd d",
    "3d1 d",
    "d3d5 2",
    "-3- 3",
    "-d3 d",
    "d-- 3",
    "--- d",
    "--- 2",
    "h3b h",
    "htd b",
    "3t2 t",
    "3d-2 -",
    "0 3",
]


@pytest.mark.parametrize("block", [1, 3 * INTO, 1 << 22], ids=["row by row", "three rows", "whole"])
@pytest.mark.parametrize("case", CASES)
def test_inner_products_of_one_matrix(case: str, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "_BLOCK", block)
    kinds, last = case.split()
    atoms = [made(kind, seed) for seed, kind in enumerate(kinds)]
    target = made(last, 99)
    rows = np.stack([row(atom) for atom in atoms])
    stack = Stack.of(atoms)
    np.testing.assert_allclose(stack.gram(), rows @ rows.T, rtol=1e-10, atol=1e-10)
    if target is not None:
        np.testing.assert_allclose(stack.correlation(target), rows @ row(target), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("block", [3, 1 << 22], ids=["three entries", "whole"])
def test_one_dimensional_tensors(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "_BLOCK", block)
    torch.manual_seed(0)
    values = torch.randn(4, 10)
    stack = Stack.of([Dense(values[0]), None, Dense(values[1].bfloat16()), Dense(values[2])])
    rows = np.stack([values[0].numpy(), np.zeros(10), values[1].bfloat16().float().numpy(), values[2].numpy()]).astype(np.float64)
    np.testing.assert_allclose(stack.gram(), rows @ rows.T, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(stack.correlation(Dense(values[3])), rows @ values[3].double().numpy(), rtol=1e-12)


def test_a_stack_of_nothing() -> None:
    assert Stack.of([]).gram().shape == (0, 0)
    assert Stack.of([]).correlation(Dense(torch.ones(3))).shape == (0,)


def vectors() -> tuple[list[Held], Held]:
    """Three atoms and a target over four tensors; no tensor is in all of them."""
    torch.manual_seed(5)
    atoms = [
        Held("one", {"q": LowRank(torch.randn(6, 2), torch.randn(2, 5)), "bias": Dense(torch.randn(6))}),
        Held("two", {"q": Dense(torch.randn(6, 5)), "v": LowRank(torch.randn(4, 1), torch.randn(1, 5))}),
        Held("three", {"v": LowRank(torch.randn(4, 3), torch.randn(3, 5)), "q": LowRank(torch.randn(6, 1), torch.randn(1, 5))}),
    ]
    target = Held("target", {"v": Dense(torch.randn(4, 5)), "alone": Dense(torch.randn(3)), "q": LowRank(torch.randn(6, 2), torch.randn(2, 5))})
    return atoms, target


def flat(vector: Held, tensors: Iterable[str]) -> Rows:
    sizes = {"q": 30, "bias": 6, "v": 20, "alone": 3}
    parts = [vector.delta(name).dense().double().numpy().reshape(-1) if name in vector.shapes else np.zeros(sizes[name]) for name in tensors]
    return np.concatenate(parts)


def test_tensors_of_all_sides_are_counted_once() -> None:
    atoms, target = vectors()
    read: list[str] = []

    def watch(names: Iterable[str]) -> Iterable[str]:
        for name in names:
            read.append(name)
            yield name

    found = gram(atoms, target, watch)
    assert found.atoms == ("one", "two", "three")
    assert found.tensors == ("v", "alone", "q", "bias") == tuple(read)
    assert found.skipped == ()
    rows, goal = np.stack([flat(atom, found.tensors) for atom in atoms]), flat(target, found.tensors)
    np.testing.assert_allclose(found.gram.sum(0), rows @ rows.T, rtol=1e-6)
    np.testing.assert_allclose(found.correlation.sum(0), rows @ goal, rtol=1e-6)
    assert found.norm_squared.sum() == pytest.approx(goal @ goal, rel=1e-6)
    for place, tensor in enumerate(found.tensors):
        part = np.stack([flat(atom, [tensor]) for atom in atoms])
        np.testing.assert_allclose(found.gram[place], part @ part.T, rtol=1e-6, atol=1e-12)
        np.testing.assert_allclose(found.correlation[place], part @ flat(target, [tensor]), rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("side", ["target", "two"])
def test_a_tensor_that_one_side_leaves_out_is_left_out_for_all(side: str) -> None:
    """Counted as zero it would shrink every coefficient of an atom that changes it."""
    atoms, target = vectors()
    skips = (Skipped("q", "vocabulary differs"),)
    thin = [Held(v.name, {k: d for k, d in v.deltas.items() if k != "q"}, skips) if v.name == side else v for v in (*atoms, target)]
    found = gram(thin[:-1], thin[-1])
    assert found.skipped == (Skipped("q", f"{side}: vocabulary differs"),)
    assert found.tensors == ("v", "alone", "bias")
    rows, goal = np.stack([flat(atom, found.tensors) for atom in atoms]), flat(target, found.tensors)
    np.testing.assert_allclose(found.gram.sum(0), rows @ rows.T, rtol=1e-6)
    np.testing.assert_allclose(found.correlation.sum(0), rows @ goal, rtol=1e-6)


def test_vectors_of_different_models_are_refused() -> None:
    atoms, target = vectors()
    wider = Held("wider", {"v": LowRank(torch.randn(4, 1), torch.randn(1, 6))})
    text = r"^wider, tensor v: expected the shape \(4, 5\) that the tensor has in the other task vectors, found \(4, 6\); they belong to different"
    with pytest.raises(BadInput, match=text):
        gram([*atoms, wider], target)
    # where the tensor is left out for all, its shape does not matter
    assert "v" not in gram([*atoms, wider], Held("t", {"q": target.delta("q")}, (Skipped("v", "why"),))).tensors


def test_coefficients_come_back_through_the_factors() -> None:
    """A target that is a sum of low-rank atoms, expanded: its coefficients from n x n numbers are exact."""
    torch.manual_seed(3)
    atoms = [Held(str(i), {"w": LowRank(torch.randn(40, 4).double(), torch.randn(4, 30).double())}) for i in range(5)]
    truth = np.array([0.5, 0.0, 1.5, -0.2, 0.8])
    mixed = sum((weight * atom.delta("w").dense() for weight, atom in zip(truth.tolist(), atoms, strict=True)), torch.zeros(40, 30))
    target = Held("t", {"w": Dense(mixed)})
    found = gram(atoms, target)
    np.testing.assert_allclose(np.linalg.solve(found.gram.sum(0), found.correlation.sum(0)), truth, atol=1e-12)


@pytest.mark.parametrize("target", ["d", "b", "4", "s"])
def test_large_tensors_in_float32(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a large tensor: within 4e-7 ||v|| ||t|| of float64, and not in it."""
    monkeypatch.setattr("unmerge.vectors.delta.LARGE", 1)
    torch.manual_seed(0)
    atoms = [LowRank(torch.randn(300, 8), torch.randn(8, 400)) for _ in range(4)]
    after, before = torch.randn(300, 400).bfloat16(), torch.randn(300, 400).bfloat16()
    changes: dict[str, Delta] = {
        "d": Dense(torch.randn(300, 400)),
        "b": Dense(torch.randn(300, 400).bfloat16()),
        "4": LowRank(torch.randn(300, 4), torch.randn(4, 400)),
        "s": Subtracted(after, before),
    }
    stack, rows = Stack.of(atoms), np.stack([row(atom) for atom in (*atoms, changes[target])])
    norms = np.linalg.norm(rows, axis=1)
    exact = (rows @ rows.T) / np.outer(norms, norms)
    assert stack.b.dtype == torch.float32
    correlation, square = stack.with_target(changes[target])
    between = stack.gram() / np.outer(norms[:4], norms[:4])
    np.testing.assert_allclose(correlation / norms[:4] / norms[4], exact[:4, 4], rtol=0, atol=4e-7)
    np.testing.assert_allclose(between, exact[:4, :4], rtol=0, atol=4e-7)
    assert abs(between - exact[:4, :4]).max() > 0
    assert square == pytest.approx(norms[4] ** 2, rel=1e-6)


@pytest.mark.parametrize("dtypes", [("bfloat16", "bfloat16"), ("float32", "bfloat16"), ("bfloat16", "float32"), ("float16", "float64")])
def test_a_difference_is_taken_by_rows(dtypes: tuple[str, str]) -> None:
    torch.manual_seed(0)
    after, before = (torch.randn(7, 5).to(getattr(torch, dtype)) for dtype in dtypes)
    held = after.clone(), before.clone()
    delta, exact = Subtracted(after, before), after.double() - before.double()
    assert delta.shape == (7, 5)
    torch.testing.assert_close(delta.dense().double(), exact, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(delta.rows(slice(1, 6, 2)).double(), exact[1:6:2], rtol=1e-6, atol=1e-7)
    assert norm_squared(delta) == pytest.approx(float(exact.square().sum()), rel=1e-6)
    assert torch.equal(after, held[0])
    assert torch.equal(before, held[1])


def test_products_between_atoms_that_are_known_are_not_taken_again() -> None:
    atoms, target = vectors()
    whole = gram(atoms, target)
    marked = {tensor: products + 1 for tensor, products in zip(whole.tensors, whole.gram, strict=True) if tensor != "v"}
    again = gram(atoms, target, weights=AllWeights(marked))
    np.testing.assert_array_equal(again.correlation, whole.correlation)
    for place, tensor in enumerate(whole.tensors):
        np.testing.assert_allclose(again.gram[place], whole.gram[place] + (tensor != "v"))
