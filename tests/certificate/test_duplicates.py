"""Near duplicates: families by cosine, and which member a target holds, on synthetic merges whose answer is known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from unmerge.certificate.duplicates import ALIKE, DISTINCT, Settled, families, settle, usual_cosine

TENSORS, SHAPE, RANK = 12, (72, 48), 6
#: |dW| over |W|: bf16 then leaves about half of the weights as they are
SCALE = 0.004
MERGES = {
    "task_arithmetic": ("task_arithmetic", 1.0, torch.float64),
    "ties": ("ties", 0.3, torch.float64),
    "dare_linear": ("dare_linear", 0.3, torch.float64),
    "dare_ties": ("dare_ties", 0.5, torch.float64),
    "bf16": ("task_arithmetic", 1.0, torch.bfloat16),
    "ties, bf16": ("ties", 0.5, torch.bfloat16),
}


class Room:
    """A base and what can be done to it, tensor by tensor."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.base = [self.normal(*SHAPE).bfloat16().double() for _ in range(TENSORS)]

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator, dtype=torch.float64)

    def atom(self, right: Sequence[Tensor] | None = None) -> list[Tensor]:
        """Low-rank with a falling spectrum; ``right``: A factors to be shared."""
        spectrum = 0.75 ** torch.arange(RANK)
        rights = right or self.rights()
        return self.scaled([(self.normal(SHAPE[0], RANK) * spectrum) @ a for a in rights])

    def rights(self) -> list[Tensor]:
        return [self.normal(RANK, SHAPE[1]) for _ in range(TENSORS)]

    @staticmethod
    def scaled(change: list[Tensor]) -> list[Tensor]:
        size = SCALE * np.sqrt(TENSORS * SHAPE[0] * SHAPE[1]) / np.sqrt(sum(float(part.square().sum()) for part in change))
        return [part * size for part in change]

    def variant(self, atom: list[Tensor], cosine: float, right: Sequence[Tensor] | None = None) -> list[Tensor]:
        """An atom of the same length at a given cosine, by a low-rank change of its own."""
        other = self.atom(right)
        along = sum(float((a * b).sum()) for a, b in zip(atom, other, strict=True)) / sum(float(a.square().sum()) for a in atom)
        across = self.scaled([b - along * a for a, b in zip(atom, other, strict=True)])
        return [cosine * a + np.sqrt(1 - cosine**2) * b for a, b in zip(atom, across, strict=True)]

    def merge(self, changes: list[list[Tensor]], weights: list[float], method: str, density: float, dtype: torch.dtype) -> list[Tensor]:
        """As mergekit defines the methods: sparsify, weigh, elect signs, add, and round to the dtype."""
        merged = []
        for base, *parts in zip(self.base, *changes, strict=True):
            deltas = torch.stack([((base + part).to(dtype).double() - base) for part in parts])
            if method == "ties":
                kept = max(1, int(density * base.numel()))
                least = deltas.abs().flatten(1).topk(kept).values[:, -1]
                deltas = torch.where(deltas.abs() >= least[:, None, None], deltas, 0.0)
            if method.startswith("dare"):
                deltas = deltas * (torch.rand(deltas.shape, generator=self.generator) < density) / density
            weight = torch.tensor(weights, dtype=torch.float64)[:, None, None]
            weighed = deltas * weight
            total = weighed.sum(0)
            if method.endswith("ties"):
                agree = weighed.sign() == torch.where(total >= 0, 1.0, -1.0)
                total = (weighed * agree).sum(0)
                if method == "ties":
                    divisor = (weight * agree).sum(0)
                    total = total / torch.where(divisor == 0, 1.0, divisor)
            merged.append((base + total).to(dtype).double() - base)
        return merged


def equations(candidates: list[list[Tensor]], target: list[Tensor]) -> tuple[np.ndarray, np.ndarray]:
    """(m, k, k) and (m, k), from expanded changes."""
    expanded = [torch.stack([part.reshape(-1) for part in parts]) for parts in zip(*candidates, strict=True)]
    gram = np.array([(parts @ parts.T).numpy() for parts in expanded])
    return gram, np.array([(parts @ part.reshape(-1)).numpy() for parts, part in zip(expanded, target, strict=True)])


def right(settled: list[Settled], truth: int) -> bool:
    """The atom itself, or a group that contains it."""
    return len(settled) == 1 and (settled[0].best == truth or truth in settled[0].group)


@pytest.mark.parametrize("merge", MERGES)
@pytest.mark.parametrize("cosine", [0.5, 0.7, 0.8, 0.9, 0.95, 0.99, 0.999])
def test_variant_or_original(cosine: float, merge: str) -> None:
    """Beside one known and two unknown components, whichever of the two is in the target."""
    for kind in ("continued", "shared A"):
        for truth in (0, 1):
            room = Room(seed=int(1000 * cosine) + truth)
            rights = room.rights()
            original = room.atom(rights)
            variant = room.variant(original, cosine, rights if kind == "shared A" else None)
            present, *unknown = (room.atom() for _ in range(3))
            target = room.merge([(original, variant)[truth], present, *unknown], [0.8, 0.6, 0.7, 0.5], *MERGES[merge])
            settled = settle([0, 1], *equations([original, variant, present], target))
            assert right(settled, truth), (kind, truth, settled)
            if cosine <= 0.9:
                assert settled == [Settled(truth)], (kind, truth, settled)


@pytest.mark.parametrize("merge", MERGES)
@pytest.mark.parametrize("truth", range(5))
def test_family_of_five(truth: int, merge: str) -> None:
    """An original, two seeds of its task, and two continued trainings of one of them."""
    room = Room(seed=truth)
    original = room.atom()
    seeds = [room.variant(original, cosine) for cosine in (0.5, 0.6)]
    family = [original, *seeds, room.variant(seeds[0], 0.9), room.variant(seeds[0], 0.98)]
    present, *unknown = (room.atom() for _ in range(3))
    target = room.merge([family[truth], present, *unknown], [0.8, 0.6, 0.7, 0.5], *MERGES[merge])
    settled = settle(range(5), *equations([*family, present], target))
    assert right(settled, truth), settled


@pytest.mark.parametrize("merge", MERGES)
def test_two_members_in_the_target(merge: str) -> None:
    room = Room(seed=0)
    original = room.atom()
    variant, third = room.variant(original, 0.6), room.variant(original, 0.7)
    target = room.merge([original, variant, room.atom()], [0.8, 0.7, 0.6], *MERGES[merge])
    settled = settle([0, 1, 2], *equations([original, variant, third], target))
    assert {one.best for one in settled} == {0, 1}
    assert not any(one.group for one in settled)


def test_members_that_are_nearly_one_are_never_both() -> None:
    room = Room(seed=0)
    original = room.atom()
    variant = room.variant(original, DISTINCT + 0.05)
    target = room.merge([original, variant], [0.8, 0.7], *MERGES["task_arithmetic"])
    assert settle([0, 1], *equations([original, variant], target)) == [Settled(0, (0, 1))]


@pytest.mark.parametrize("factor", [1.0, 0.3, -1.0])
def test_duplicates_are_a_group(factor: float) -> None:
    """Also where one is longer than the other, or its negative; whatever else is told apart stays so."""
    room = Room(seed=0)
    original = room.atom()
    variant, other = room.variant(original, 0.8), room.atom()
    target = room.merge([original, other, room.atom()], [0.8, 0.7, 0.6], *MERGES["bf16"])
    gram, correlation = equations([variant, original, [factor * part for part in original], other], target)
    (settled,) = settle([0, 1, 2], gram, correlation)
    assert settled.group == (1, 2)


def test_a_difference_in_one_tensor_is_no_evidence() -> None:
    """Nothing tells how far a single tensor scatters."""
    room = Room(seed=0)
    original = room.atom()
    variant = [2 * original[0], *original[1:]]
    target = room.merge([original, room.atom()], [0.8, 0.7], *MERGES["task_arithmetic"])
    assert settle([0, 1], *equations([original, variant], target))[0].group == (0, 1)


@pytest.mark.parametrize(("tensors", "told"), [(1, False), (2, False), (24, True)])
@pytest.mark.filterwarnings("error")
def test_few_tensors_tell_little(tensors: int, told: bool) -> None:
    """Contributions of 1 and 0 that scatter by a tenth: ten standard errors of two tensors are not much."""
    gram = np.broadcast_to(np.eye(2) / tensors, (tensors, 2, 2))
    scatter = np.resize([1.1, 0.9], tensors) if tensors > 1 else np.ones(1)
    settled = settle([0, 1], gram, np.stack([scatter / tensors, 0 * scatter], 1))
    assert settled == [Settled(0, () if told else (0, 1))]


def test_what_trimming_leaves_on_a_variant_is_no_second_component() -> None:
    """ties at density .1: a part of the variant's contribution falls on the original, in every tensor alike."""
    room = Room(seed=1)
    original = room.atom()
    variant = room.scaled([a + 0.9 * SCALE * room.normal(*SHAPE) for a in original])
    target = room.merge([variant, room.atom(), room.atom()], [0.8, 0.6, 0.7], "ties", 0.1, torch.float64)
    gram, correlation = equations([original, variant], target)
    shares = np.linalg.solve(gram.sum(0), correlation.sum(0))
    assert shares[0] > 0.05 * shares[1]
    assert settle([0, 1], gram, correlation) == [Settled(1)]


def test_an_origin_that_is_not_among_the_candidates() -> None:
    """Two continued trainings of one adapter, and the target holds that adapter: neither is named alone."""
    room = Room(seed=0)
    origin = room.atom()
    one, two = (room.variant(origin, 0.95) for _ in range(2))
    target = room.merge([origin, room.atom()], [0.8, 0.6], *MERGES["bf16"])
    assert settle([0, 1], *equations([one, two], target))[0].group == (0, 1)


def test_leak() -> None:
    """A direction that an unknown component shares with the members' difference decides nothing, once it is allowed for."""
    room = Room(seed=0)
    original, unknown = room.atom(), room.atom()
    variant = [a + 0.2 * b for a, b in zip(original, unknown, strict=True)]
    target = room.merge([original, unknown], [1.0, 0.2], *MERGES["task_arithmetic"])
    gram, correlation = equations([original, variant], target)
    assert settle([0, 1], gram, correlation) == [Settled(1)]
    norm = np.sqrt(sum(float(part.square().sum()) for part in unknown))
    assert settle([0, 1], gram, correlation, leak=0.2 * norm)[0].group == (0, 1)


@pytest.mark.parametrize(("factor", "needed"), [(0.1, True), (0.3, True), (1.0, False)])
def test_directions_that_all_adapters_share(factor: float, needed: bool) -> None:
    """Then unknown components lie along the members' difference in every tensor alike, which no spread shows."""
    wrong = 0
    for seed in range(8):
        room = Room(seed)
        common = room.atom()
        original, change, present, *unknown = (room.scaled([a + 0.7 * b for a, b in zip(room.atom(), common, strict=True)]) for _ in range(5))
        variant = [a + factor * b for a, b in zip(original, change, strict=True)]
        truth = seed % 2
        target = room.merge([(original, variant)[truth], present, *unknown], [0.8, 0.6, 0.7, 0.5], *MERGES["bf16"])
        gram, correlation = equations([original, variant, present], target)
        usual = float(usual_cosine(equations([original, present, *unknown], target)[0].sum(0))[0])
        assert 0.2 < usual < 0.4
        shares = np.linalg.solve(gram.sum(0), correlation.sum(0))
        rest = np.sqrt(sum(float(part.square().sum()) for part in target) - shares @ correlation.sum(0))
        assert right(settle([0, 1], gram, correlation, usual * rest), truth), seed
        wrong += not right(settle([0, 1], gram, correlation), truth)
    assert (wrong > 0) == needed


def test_usual_cosine() -> None:
    cosines = np.array([[1.0, 0.9, 0.1, -0.3], [0.9, 1.0, 0.2, 0.0], [0.1, 0.2, 1.0, 0.0], [-0.3, 0.0, 0.0, 1.0]])
    lengths = np.array([1.0, 5.0, 0.2, 2.0])
    assert usual_cosine(cosines * np.outer(lengths, lengths)) == pytest.approx([(0.1 + 0.3 + 0.2) / 5] * 4)
    assert usual_cosine(cosines[:2, :2]).tolist() == [0.0, 0.0]
    # among atoms without a low rank other cosines are usual
    assert usual_cosine(cosines, np.array([True, False, False, True])) == pytest.approx([0.3, 0.2, 0.2, 0.3])
    assert usual_cosine(cosines, np.array([True, False, False, False]))[0] == pytest.approx((0.1 + 0.3 + 0.2) / 5)


def test_a_clearly_negative_contribution_is_no_evidence_against() -> None:
    """A merge adds: original - .4 variant means that something in the target is not among the candidates."""
    room = Room(seed=0)
    original = room.atom()
    variant = room.variant(original, 0.7)
    target = room.merge([original, variant], [0.8, -0.6], *MERGES["task_arithmetic"])
    assert settle([0, 1], *equations([original, variant], target))[0].group == (0, 1)


def test_families() -> None:
    room = Room(seed=0)
    first, second, third = (room.atom() for _ in range(3))
    atoms = [
        first,
        second,
        room.variant(first, ALIKE + 0.02),
        third,
        [-2 * part for part in second],
        room.variant(third, ALIKE - 0.02),
        [0 * part for part in first],
    ]
    atoms.append(room.variant(atoms[2], 0.9))  # alike to the first only by way of the third
    gram = equations(atoms, first)[0].sum(0)
    assert families(gram) == [[0, 2, 7], [1, 4], [3], [5], [6]]
    assert families(np.zeros((0, 0))) == []
    order = [7, 3, 2, 4, 0, 6, 5, 1]
    shuffled = families(gram[np.ix_(order, order)])
    assert [[order[atom] for atom in family] for family in shuffled] == [[7, 2, 0], [3], [4, 1], [6], [5]]
