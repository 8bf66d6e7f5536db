"""The correlation test: against regression done by hand, on planted truth, its calibration and its invariances, and on the zoo."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats

from unmerge.certificate.correlation import FLOOR, MOST, NOISE, RELATED, CorrelationTest
from unmerge.decomposition import open_base, open_dictionary
from unmerge.decomposition.spaces import SPACES
from unmerge.vectors import Dense, Gram, Held

Matrix = NDArray[np.float64]
WIDTH, TENSORS = 3000, 3


def family(count: int, rng: np.random.Generator, shared: float = 0.5, categories: int = 4, alike: float = 0.25) -> Matrix:
    """(count, WIDTH) fine-tunes of one base: a direction that all share, one that a category shares, and their own."""
    common, kinds = rng.standard_normal(WIDTH), rng.standard_normal((categories, WIDTH))
    own = rng.standard_normal((count, WIDTH))
    return shared * common + alike * kinds[rng.integers(categories, size=count)] + own * np.sqrt(1 - shared**2 - alike**2)


def products(atoms: Matrix, target: Matrix) -> Gram:
    """Inner products over TENSORS equal parts of the weights."""
    parts = np.split(np.vstack([atoms, target]), TENSORS, axis=1)
    inner = np.array([part @ part.T for part in parts])
    names, tensors = tuple(f"atom{place}" for place in range(len(atoms))), tuple(f"tensor{place}" for place in range(TENSORS))
    return Gram(names, tensors, inner[:, :-1, :-1], inner[:, :-1, -1], inner[:, -1, -1], np.full(TENSORS, WIDTH // TENSORS))


def named(atoms: Matrix, target: Matrix, level: float = 0.001) -> set[int]:
    return set(np.flatnonzero(CorrelationTest(products(atoms, target), level).presence().present).tolist())


def partial(one: Matrix, two: Matrix, others: Matrix, noise: float = 0.0) -> float:
    """|correlation| of what others leave of two vectors, by regression; ``noise``: a share of the second one's norm, on top of it."""
    left = [vector - others.T @ np.linalg.lstsq(others.T, vector, rcond=None)[0] for vector in (one, two)]
    return float(abs(left[0] @ left[1]) / np.sqrt(left[0] @ left[0] * (left[1] @ left[1] + noise**2 * two @ two)))


@pytest.mark.parametrize("count", [3, 6, 14])
def test_by_hand(count: int) -> None:
    """Score and p-value against regressions, and the text's formulas written out."""
    rng = np.random.default_rng(0)
    atoms = family(count, rng)
    target = 0.1 * atoms[1] + family(1, rng)[0]
    result = CorrelationTest(products(atoms, target)).presence()
    score = [partial(atoms[place], target, np.delete(atoms, place, 0), FLOOR) for place in range(count)]
    np.testing.assert_allclose(result.score, score, rtol=1e-4, atol=1e-6)
    pairs = {(i, j): np.arctanh(partial(atoms[i], atoms[j], np.delete(atoms, [i, j], 0))) for i in range(count) for j in range(i)}
    overall = (RELATED + sum(pairs.values())) / (1 + len(pairs))
    mean = [(overall + sum(z for pair, z in pairs.items() if place in pair)) / count for place in range(count)]
    spread = [z - (mean[i] + mean[j]) / 2 for (i, j), z in pairs.items()]
    sigma = np.sqrt((RELATED**2 + np.square(spread).sum()) / (1 + len(pairs)))
    for place in range(count):
        usual = np.median([np.arctanh(score[other]) / mean[other] for other in range(count) if other != place])
        level = (min(usual, MOST) * (count - 1) + MOST) / count
        deviation = np.sqrt((min(level, 1) * sigma) ** 2 * (1 + np.pi / 2 / count) + NOISE**2 + 1 / WIDTH)
        expected = stats.t.sf((np.arctanh(score[place]) - level * mean[place]) / deviation, min(count + 2, 10))
        assert result.p_value[place] == pytest.approx(expected, rel=1e-3)
    np.testing.assert_allclose(result.q_value, stats.false_discovery_control(result.p_value))


def test_most_of_the_dictionary_in_the_target() -> None:
    """The others tell nothing of how unknown components would show; that is bounded, and a clean merge still named."""
    rng = np.random.default_rng(8)
    atoms = family(6, rng)
    assert named(atoms, rng.uniform(0.5, 1.0, 6) @ atoms) == set(range(6))


@pytest.mark.parametrize("noise", [0.0, 0.5], ids=["clean", "a fifth of it noise"])
@pytest.mark.parametrize("group", ["known", "mixed", "unknown"])
def test_planted(group: str, noise: float) -> None:
    """Exactly the atoms that are in the target, whatever unknown ones are beside them."""
    for seed in range(5):
        rng = np.random.default_rng(seed)
        vectors = family(24, rng)
        inside = {"known": [0, 1, 2], "mixed": [3, 4, 15, 16], "unknown": [12, 13, 14, 15]}[group]
        target = rng.uniform(0.7, 1.0, len(inside)) @ vectors[inside]
        target += noise * np.linalg.norm(target) / np.sqrt(WIDTH) * rng.standard_normal(WIDTH)
        assert named(vectors[:12], target) == {atom for atom in inside if atom < 12}


@pytest.mark.parametrize(("count", "unknown"), [(3, 3), (6, 2), (12, 1), (12, 4)])
def test_calibration(count: int, unknown: int) -> None:
    """Where nothing known is in the target, no more is rejected than the level says: by the binomial interval, or below."""
    p_values = []
    for seed in range(300 // count * 2):
        rng = np.random.default_rng(seed)
        vectors = family(count + unknown, rng)
        target = rng.uniform(0.3, 1.2, unknown) @ vectors[count:] + rng.uniform(0, 0.5) * rng.standard_normal(WIDTH)
        p_values += CorrelationTest(products(vectors[:count], target)).presence().p_value.tolist()
    for level in (0.05, 0.01, 0.001):
        assert np.sum(np.array(p_values) <= level) <= stats.binom.ppf(0.995, len(p_values), level)


def test_units_and_order_do_not_matter() -> None:
    rng = np.random.default_rng(1)
    vectors = family(10, rng)
    target = 0.4 * vectors[2] + vectors[9]
    plain = CorrelationTest(products(vectors[:9], target))
    scales, order = 10.0 ** rng.uniform(-6, 6, 9), rng.permutation(9)
    scaled = CorrelationTest(products((vectors[:9] * scales[:, None])[order], -1e-5 * target))
    before, after = plain.presence(), scaled.presence()
    np.testing.assert_allclose(after.p_value, before.p_value[order], rtol=1e-6)
    np.testing.assert_allclose(after.score, before.score[order], rtol=1e-6)
    np.testing.assert_allclose(scaled.detection_limits(), (plain.detection_limits() * 1e-5 / scales)[order], rtol=1e-6)


@pytest.mark.parametrize("factor", [0.998, 1.002])
def test_detection_limit(factor: float) -> None:
    """An atom at its limit is just named by itself, below it is not."""
    rng = np.random.default_rng(2)
    vectors = family(11, rng)
    without = vectors[10] - vectors[:10].T @ np.linalg.lstsq(vectors[:10].T, vectors[10], rcond=None)[0]
    limit = CorrelationTest(products(vectors[:10], without), 0.01).detection_limits()[4]
    # the limit grows with the unexplained norm; the atom's own part adds nothing to it, so the limit still holds
    p_value = CorrelationTest(products(vectors[:10], without + factor * limit * vectors[4]), 0.01).presence().p_value[4]
    assert (p_value <= 0.01 / 10) == (factor > 1)


def test_one_atom() -> None:
    """Nothing is known of how fine-tunes of this base are related: only what is nearly all of the target is named."""
    rng = np.random.default_rng(3)
    vectors = family(2, rng, shared=0.0, alike=0.0)
    assert named(vectors[:1], vectors[0] + 0.1 * vectors[1]) == {0}
    assert named(vectors[:1], vectors[0] + vectors[1]) == set()


@pytest.mark.parametrize("cosine", [1.0, 0.99, 0.96, -0.99])
def test_twins(cosine: float) -> None:
    """Twins of a present atom are named with it, to be told apart elsewhere; twins of an absent one are not."""
    rng = np.random.default_rng(4)
    vectors = family(14, rng)
    twins = cosine * vectors[[0, 5, 5]] + np.sqrt(1 - cosine**2) * rng.standard_normal((3, WIDTH))
    atoms = np.vstack([vectors[:10], twins])
    result = CorrelationTest(products(atoms, 0.7 * vectors[0] + vectors[3] + 0.5 * vectors[12])).presence()
    assert np.isfinite(result.p_value).all()
    assert set(np.flatnonzero(result.present)) == {0, 3, 10}


@pytest.mark.parametrize("cosine", [0.6, 0.8, 0.9])
def test_variants_below_twins_are_told_apart(cosine: float) -> None:
    rng = np.random.default_rng(5)
    vectors = family(14, rng)
    variant = cosine * vectors[0] + np.sqrt(1 - cosine**2) * rng.standard_normal(WIDTH)
    assert named(np.vstack([vectors[:12], variant]), vectors[0] + 0.5 * vectors[12]) == {0}
    assert named(np.vstack([vectors[:12], variant]), variant + 0.5 * vectors[12]) == {12}


def test_a_merge_in_the_dictionary() -> None:
    """Each of three atoms is what the other two put together: none can be told, the others still are."""
    for seed in range(5):
        vectors = family(10, np.random.default_rng(seed))
        result = CorrelationTest(products(np.vstack([vectors[:8], vectors[0] + vectors[1]]), vectors[0] + vectors[4])).presence()
        assert np.isfinite(result.p_value).all()
        assert set(np.flatnonzero(result.present)) == {4}


def test_nothing_to_see() -> None:
    rng = np.random.default_rng(7)
    atoms = family(6, rng)
    atoms[2] = 0
    atoms[3, WIDTH // TENSORS :] = 0
    result = CorrelationTest(products(atoms, atoms[3])).presence()
    assert (result.score[2], result.p_value[2], bool(result.present[2])) == (0, 1, False)
    assert set(np.flatnonzero(result.present)) == {3}
    np.testing.assert_array_equal(result.tensors, [3, 3, 0, 1, 3, 3])
    still = CorrelationTest(products(atoms, np.zeros(WIDTH)))
    np.testing.assert_array_equal(still.presence().p_value, 1)
    assert np.isnan(still.detection_limits()).all()
    assert len(CorrelationTest(products(atoms[:0], atoms[0])).presence().present) == 0


@pytest.mark.parametrize(("group", "space"), [("known", "nonzero"), ("mixed", "exact"), ("mixed", "compressed"), ("unknown", "exact")])
def test_zoo(group: str, space: str, zoo: Path) -> None:
    """The zoo's adapters in a merge with a random half of each one's weights, in bfloat16."""
    base = open_base(zoo / "zoo-base")
    known, unknown = (open_dictionary([zoo / half], base).atoms for half in ("known", "unknown"))
    inside = {"known": [*known[:3]], "mixed": [*known[3:5], *unknown[:3]], "unknown": [*unknown[5:9]]}[group]
    torch.manual_seed(1)
    merged = {}
    for tensor in known[0].shapes:
        weights = base.read(tensor).float()
        for atom, weight in zip(inside, (0.9, 0.5, 0.7, 0.4, 0.6), strict=False):
            dense = atom.delta(tensor).dense()
            weights = weights + 2 * weight * dense * (torch.rand(dense.shape) < 0.5)
        merged[tensor] = Dense(weights.bfloat16().float() - base.read(tensor).float())
    result = CorrelationTest(SPACES[space].products(known, Held("target", merged), iter)).presence()
    assert {known[place].name for place in np.flatnonzero(result.present)} == {atom.name for atom in inside} & {atom.name for atom in known}
