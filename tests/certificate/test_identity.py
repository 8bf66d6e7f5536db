"""Present and identical are two claims: the very atom is told from relatives of it, whatever else is in the target."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from real_like import RANK, adapters, certified, claims, relative

from unmerge.certificate.identity import Identity, leaves_more, likeness, likeness_by_weights, remains
from unmerge.certificate.spectrum import signal_of
from unmerge.vectors import Dense, LowRank


@pytest.mark.parametrize("unknown", [False, True], ids=["known", "mixed"])
def test_the_very_atoms_are_claimed(unknown: bool) -> None:
    drawn = adapters(10, torch.Generator().manual_seed(0))
    parts = [(drawn[0], 0.7), (drawn[1], 0.5)] + ([(drawn[8], 0.8), (drawn[9], 0.6)] if unknown else [])
    certificate = certified(parts, drawn[:8], None)
    assert claims(certificate) == {0: "exact", 1: "exact"}
    np.testing.assert_allclose([found.coefficient for found in certificate.found], [0.7, 0.5], rtol=1e-4)
    assert all(found.p_value < 1e-6 for found in certificate.found)


@pytest.mark.parametrize("unknown", [False, True], ids=["known", "mixed"])
@pytest.mark.parametrize("cosine", [0.8, 0.98])
def test_a_relative_is_not_the_atom(cosine: float, unknown: bool) -> None:
    """The relative alone is in the target; and the other component, the very atom, is claimed and measured with the relative left in."""
    generator = torch.Generator().manual_seed(1)
    drawn = adapters(10, generator)
    parts = [(relative(drawn[0], cosine, generator), 0.7), (drawn[1], 0.5)] + ([(drawn[8], 0.6)] if unknown else [])
    certificate = certified(parts, drawn[:8], None)
    said = claims(certificate)
    assert said.get(0, "absent") != "exact"
    assert said[1] == "exact"
    if not unknown:
        assert said[0] == "relative"
    (other,) = (found for found in certificate.found if found.atom == 1)
    assert other.coefficient == pytest.approx(0.5, rel=2e-3)
    first = next((found for found in certificate.found if found.atom == 0), None)
    assert first is None or cosine > 0.9 or first.p_value > 0.05


def test_a_sibling_is_tried_in_a_relative_s_place() -> None:
    """Of three checkpoints of a run the one that is in the target is claimed, also beside something unknown."""
    generator = torch.Generator().manual_seed(2)
    drawn = adapters(9, generator)
    run = [drawn[0], relative(drawn[0], 0.97, generator), relative(drawn[0], 0.9, generator)]
    for place in range(3):
        certificate = certified([(run[place], 0.7), (drawn[8], 0.6)], [*run, *drawn[1:8]], torch.bfloat16)
        assert claims(certificate) == {place: "exact"}


@pytest.mark.parametrize("seed", range(3))
def test_several_checkpoints_of_a_run_at_once(seed: int) -> None:
    """They are near one direction: what is said of them together stays within what they can be."""
    generator = torch.Generator().manual_seed(seed)
    drawn = adapters(8, generator)
    run = [drawn[0], relative(drawn[0], 0.999, generator), relative(drawn[0], 0.98, generator)]
    certificate = certified([(run[0], 0.47), (run[1], 1.06), (run[2], 0.41), (drawn[1], 0.79)], [*run, *drawn[1:]], None)
    said = {one.atom: one.coefficient for one in certificate.found}
    assert said[3] == pytest.approx(0.79, rel=1e-2)
    assert sum(said.get(place, 0.0) for place in range(3)) == pytest.approx(1.94, rel=0.05)
    assert "exact" not in [identity for place, identity in claims(certificate).items() if place < 3]


def test_other_factors_in_the_same_subspaces() -> None:
    """Columns and rows of the atom, put together otherwise: contained whole, and not the atom."""
    generator = torch.Generator().manual_seed(3)
    drawn = adapters(8, generator)
    mixed = {name: LowRank(delta.b @ torch.linalg.qr(torch.randn(RANK, RANK, generator=generator))[0], delta.a) for name, delta in drawn[0].items()}
    assert claims(certified([(mixed, 0.8), (drawn[7], 0.5)], drawn[:7], None)).get(0) != "exact"


def test_what_is_left_against_dense_projections() -> None:
    """Of one tensor without noise: energies on either side, after the directions that may be unknown are taken out."""
    torch.manual_seed(4)
    atom = LowRank(torch.randn(20, 2, dtype=torch.float64), torch.randn(2, 30, dtype=torch.float64))
    rest = LowRank(torch.randn(20, 3, dtype=torch.float64), torch.randn(3, 30, dtype=torch.float64))
    found = remains(rest, signal_of(rest), 1, [atom, None])
    left, values, right = torch.linalg.svd(rest.dense(), full_matrices=False)
    columns, rows = torch.linalg.qr(atom.b)[0], torch.linalg.qr(atom.a.T)[0]
    along = torch.maximum((columns.T @ left[:, :3]).square().sum(0), (right[:3] @ rows).square().sum(1))
    for variant, kept in ((0, [1, 2]), (1, along.argsort()[1:].tolist())):
        beyond = (left[:, kept] * values[kept]) @ right[kept]
        expected = [(columns.T @ beyond).square().sum(), (beyond @ rows).square().sum(), (columns.T @ beyond @ rows).square().sum()]
        np.testing.assert_allclose(found[0, variant], [float(value) for value in expected], rtol=1e-9)
    assert not found[1].any()


def test_noise_is_taken_off() -> None:
    """Noise whose size depends on the row, as dare's does on the atom: what it leaves in a subspace is expected, and taken off."""
    torch.manual_seed(5)
    atom = LowRank(torch.randn(200, 4, dtype=torch.float64) * torch.linspace(0.1, 3, 200)[:, None].double(), torch.randn(4, 150, dtype=torch.float64))
    shares = []
    for _ in range(20):
        noise = Dense(torch.randn(200, 150, dtype=torch.float64) * torch.linspace(0.1, 3, 200)[:, None].double())
        signal = signal_of(noise)
        assert signal.noise > 0
        shares.append(remains(noise, signal, signal.rank, [atom])[0, 0] / float(noise.values.square().sum()))
    mean, error = np.mean(shares, 0), np.std(shares, 0, ddof=1) / 20**0.5
    assert (np.abs(mean) < 4 * error).all()
    assert np.abs(mean).max() < 1e-3


def test_claims_from_shares() -> None:
    sizes = np.ones(12)
    nothing, clear = np.zeros((12, 3)), np.full((12, 3), 0.05)
    one_side = clear * [1, 0, 0]
    assert likeness(nothing, sizes, True).identity is Identity.EXACT
    assert likeness(clear, sizes, True).identity is Identity.RELATIVE
    assert likeness(one_side, sizes, True).identity is Identity.UNDECIDED
    assert likeness(clear, sizes, False).identity is Identity.UNDECIDED
    assert likeness(nothing, np.zeros(12), True).p_value == 1
    assert likeness(nothing, sizes, True, covered=True).identity is Identity.UNDECIDED
    assert likeness(nothing, sizes, True).p_value < 1e-9
    assert likeness(clear, sizes, True).p_value > 0.99
    assert likeness_by_weights(1.0, 0.1).identity is Identity.EXACT
    assert likeness_by_weights(0.9, 1e-9).identity is Identity.EXACT
    assert likeness_by_weights(0.9, 0.1).identity is Identity.UNDECIDED


def test_more_is_left_than_by_the_very_atoms() -> None:
    shown = np.full((8, 2), 6)
    assert not leaves_more(np.array([0, 1, 1, 2, 0, 1, 2, 1]), shown)
    assert leaves_more(np.array([6, 5, 6, 4, 6, 6, 6, 5]), shown)
    assert not leaves_more(np.zeros(0, dtype=np.int64), np.zeros((0, 0), dtype=np.int64))
