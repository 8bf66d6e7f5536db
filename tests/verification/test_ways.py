"""Ways to subtract, against dense projections and against the limits of the normal model."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from unmerge.vectors import Delta, Dense, Held, LowRank, gram
from unmerge.verification.ways import by_module, orthogonal, posterior

OUT, INTO = 12, 9


def low_rank(seed: int, rank: int = 2) -> LowRank:
    generator = torch.Generator().manual_seed(seed)
    return LowRank(torch.randn(OUT, rank, generator=generator), torch.randn(rank, INTO, generator=generator))


def projector(columns: torch.Tensor) -> torch.Tensor:
    columns = columns.double()
    return columns @ torch.linalg.pinv(columns)


@pytest.mark.parametrize("kind", ["factors", "dense"])
def test_orthogonal(kind: str) -> None:
    """dW - P_U dW P_V, and nothing of it lies in the others' spaces: it is orthogonal to each of them, and to any mixture of their factors."""
    own, first, second = low_rank(0), low_rank(1), low_rank(2, rank=3)
    delta: Delta = own if kind == "factors" else Dense(own.dense())
    # the second of the others is expanded: its spaces are found all the same
    others = [Held("first", {"w": first}), Held("second", {"w": Dense(second.dense())})]
    found = orthogonal(Held("own", {"w": delta}), others).delta("w").dense().double()
    left, right = projector(torch.cat([first.b, second.b], 1)), projector(torch.cat([first.a, second.a]).T)
    dense = own.dense().double()
    torch.testing.assert_close(found, dense - left @ dense @ right, atol=1e-5, rtol=1e-5)
    for other in (first.b @ first.a, second.b @ second.a, first.b @ second.a[:2]):
        assert abs(float((found * other).sum())) < 1e-4 * float(found.norm() * other.norm())
    assert float((dense - found).norm()) > 0.1  # something was shared


def test_nothing_shared_stays_whole() -> None:
    own = Held("own", {"w": low_rank(0), "bias": Dense(torch.ones(OUT))})
    found = orthogonal(own, [Held("other", {"v": low_rank(1), "bias": Dense(torch.ones(OUT))})])
    assert torch.equal(found.delta("w").dense(), own.delta("w").dense())
    assert torch.equal(found.delta("bias").dense(), torch.ones(OUT))


def test_by_module() -> None:
    own = Held("own", {"w": low_rank(0), "v": low_rank(1)})
    found = by_module(own, {"w": 0.5, "v": -2.0})
    torch.testing.assert_close(found.delta("w").dense(), 0.5 * own.delta("w").dense())
    torch.testing.assert_close(found.delta("v").dense(), -2.0 * own.delta("v").dense())


def target(atoms: list[Held], coefficients: list[list[float]], noise: float) -> Held:
    """A target whose tensors have coefficients of their own."""
    generator = torch.Generator().manual_seed(9)
    tensors = list(atoms[0].shapes)
    return Held(
        "target",
        {
            tensor: Dense(
                sum((row[place] * atom.delta(tensor).dense() for atom, row in zip(atoms, coefficients, strict=True)), torch.zeros(OUT, INTO))
                + noise * torch.randn(OUT, INTO, generator=generator)
            )
            for place, tensor in enumerate(tensors)
        },
    )


def make_atoms(tensors: int) -> list[Held]:
    return [Held(name, {f"t{place}": low_rank(100 * seed + place) for place in range(tensors)}) for seed, name in enumerate(["one", "two"], 3)]


ATOMS = make_atoms(6)
OVERALL = {"one": 0.5, "two": 0.8}


def test_tensors_that_agree_share_one_coefficient() -> None:
    """They differ by no more than their errors, so that each keeps the overall one; least squares in each tensor would follow the noise."""
    atoms = make_atoms(40)
    products = gram(atoms, target(atoms, [[0.5] * 40, [0.8] * 40], noise=1.0))
    found = posterior(products, OVERALL)
    for place, (name, coefficient) in enumerate(OVERALL.items()):
        alone = products.correlation[:, place] / products.gram[:, place, place]
        assert np.abs(alone - coefficient).mean() > 0.05
        assert list(found[name].values()) == pytest.approx([coefficient] * 40, abs=0.005)


def test_tensors_that_differ_keep_their_own() -> None:
    own = [0.1, 0.9, 0.3, 0.7, 0.5, 0.5]
    found = posterior(gram(ATOMS, target(ATOMS, [own, [0.8] * 6], noise=0.01)), OVERALL)
    assert list(found["one"].values()) == pytest.approx(own, abs=0.01)
    assert list(found["two"].values()) == pytest.approx([0.8] * 6, abs=0.01)


def test_a_tensor_that_an_atom_leaves_alone_has_no_coefficient() -> None:
    smaller = Held("one", {"t0": ATOMS[0].delta("t0")})
    found = posterior(gram([smaller, ATOMS[1]], target(ATOMS, [[0.5] * 6, [0.8] * 6], noise=0.1)), OVERALL)
    assert list(found["one"]) == ["t0"]
    assert not np.isnan(list(found["two"].values())).any()
