"""The containment certificate: is an atom in the target, whatever else is?

If T = c B A + R with R of low rank and independent of the atom, the columns of B lie in T's column space and the rows of A in
its row space. So for each atom

    H0: the atom is not in the target; what it shares with the target's signal, it shares as other adapters to this base do.

Score: over tensors and leading directions, containment in the target's signal subspaces, relative to the containment that
theory expects of the atom if it were present at its apparent coefficient:

    score = sum w k / sum w^2,    k = |U^T u|^2 |V^T v|^2,    w = E[k | present]

About 1 for an atom that is present, whatever the noise. Under H0 it is not near 0, since adapters to one base share
directions: the null distribution comes from surrogate targets made of the dictionary's other atoms, at the target's own
signal rank in every tensor. Its logit is close to normal; the p-value is a Student t tail. Tensors that the target's signal
fills are blind: everything is contained in them, so they are not counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from unmerge.certificate.directions import Directions
from unmerge.certificate.spectrum import Signal, expected_containment, signal_of
from unmerge.vectors import LowRank, TaskVector

Matrix = NDArray[np.float64]

#: directions of each atom that are looked at
DIRECTIONS = 8
#: surrogate targets, and how many atoms each holds
SURROGATES, HELD = 80, (2, 3, 4, 5)
#: a tensor is blind when a random direction pair would be contained by this much
BLIND = 0.5
#: an atom counts as present only when it shows at least this share of what a present one would
SHOWN = 0.5
#: the smallest coefficient that weights are made for
FLOOR = 0.05
#: the null's spread on the logit scale is not believed to be smaller
LEAST_SPREAD = 0.15
#: default level of the false discovery rate
LEVEL = 0.001
#: an atom that is expected to show less than this (summed squares of expected containments) cannot be tested
WEIGHT = 0.1
#: scores are kept this far from 0 and 1
_CLIP = 1e-4


@dataclass(frozen=True)
class TensorEvidence:
    """What one tensor says.

    Attributes:
        tensor: its name.
        rank: of the target's signal in it.
        noise: standard deviation of the noise in one entry of the target.
        shape: (out, in).
        filled: containment of a random direction pair.
        owner, values: (R,) the atoms' directions.
        containment: (R,) in the target.
        surrogate: (surrogates, R) in surrogate targets.
    """

    tensor: str
    rank: int
    noise: float
    shape: tuple[int, int]
    filled: float
    owner: NDArray[np.int64]
    values: Matrix
    containment: Matrix
    surrogate: Matrix

    @property
    def is_blind(self) -> bool:
        """Whether the target's signal fills the tensor."""
        return self.filled >= BLIND

    def expected(self, coefficients: Matrix) -> Matrix:
        """(R,) containment of every direction if its atom were present with its coefficient."""
        return expected_containment(coefficients[self.owner] * self.values, self.noise, self.shape)


@dataclass(frozen=True)
class Presence:
    """The outcome of the test, for each of n atoms.

    Attributes:
        score: (n,) share of the expected containment that is there; about 1 when present, 0 where nothing could show.
        p_value: (n,) of H0; 1 where nothing could show.
        q_value: (n,) adjusted over the dictionary (Benjamini and Hochberg 1995).
        present: (n,) q at most the level, and score at least SHOWN.
        tensors: (n,) how many tensors were counted.
    """

    score: Matrix
    p_value: Matrix
    q_value: Matrix
    present: NDArray[np.bool_]
    tensors: NDArray[np.int64]


def surrogate_weights(count: int, atoms: int, seed: int) -> Matrix:
    """(count, atoms) random merges of a few atoms: how many, which, and with which weights (.2 to 1.2)."""
    rng = np.random.default_rng(seed)
    weights = np.zeros((count, atoms))
    for row in weights:
        held = min(int(rng.choice(HELD)), max(atoms - 1, 1))
        row[rng.choice(atoms, held, replace=False)] = rng.uniform(0.2, 1.2, held)
    return weights


def gather(
    atoms: Sequence[TaskVector],
    target: TaskVector,
    weights: Matrix,
    watch: Callable[[Iterable[str]], Iterable[str]] = iter,
) -> list[TensorEvidence]:
    """One pass over the target: what every matrix says about every low-rank atom."""
    evidence = []
    for tensor in watch([name for name, shape in target.shapes.items() if len(shape) == 2]):
        deltas = [(index, atom.delta(tensor)) for index, atom in enumerate(atoms) if tensor in atom.shapes]
        low = [(index, delta) for index, delta in deltas if isinstance(delta, LowRank)]
        if low:
            evidence.append(_tensor_evidence(tensor, Directions.of(low, DIRECTIONS), signal_of(target.delta(tensor)), weights))
    return evidence


def _tensor_evidence(tensor: str, directions: Directions, signal: Signal, weights: Matrix) -> TensorEvidence:
    return TensorEvidence(
        tensor=tensor,
        rank=signal.rank,
        noise=signal.noise,
        shape=signal.shape,
        filled=signal.filled,
        owner=directions.owner,
        values=directions.values,
        containment=directions.containment(signal),
        surrogate=directions.surrogates(weights, signal.rank),
    )


def presence(evidence: Sequence[TensorEvidence], coefficients: Matrix, weights: Matrix, level: float = LEVEL) -> Presence:
    """Test every atom.

    Args:
        evidence: from ``gather``.
        coefficients: (n,) apparent coefficients, at which presence would be expected to show.
        weights: (surrogates, n) of the surrogates in the evidence.
        level: of the false discovery rate.
    """
    n = weights.shape[1]
    seen = [item for item in evidence if not item.is_blind]
    score, null = _scores(seen, np.maximum(coefficients, FLOOR), weights)
    p_value = np.ones(n)
    for atom in range(n):
        values = null[weights[:, atom] == 0, atom]
        # a few of everybody's directions are not enough to know how far they scatter
        if len(values) > 2 and np.isfinite(score[atom]):
            logits = _logit(values)
            spread = max(float(logits.std(ddof=1)), LEAST_SPREAD) * np.sqrt(1 + 1 / len(values))
            p_value[atom] = stats.t.sf((_logit(score[atom : atom + 1])[0] - logits.mean()) / spread, len(values) - 1)
    q_value = np.asarray(stats.false_discovery_control(p_value)) if n else p_value
    score = np.nan_to_num(score)
    counted = np.array([sum(bool((item.owner == atom).any()) for item in seen) for atom in range(n)], dtype=np.int64)
    return Presence(score=score, p_value=p_value, q_value=q_value, present=(q_value <= level) & (score >= SHOWN), tensors=counted)


def _scores(seen: Sequence[TensorEvidence], coefficients: Matrix, weights: Matrix) -> tuple[Matrix, Matrix]:
    """(n,) scores in the target and (surrogates, n) scores in the surrogates; NaN for atoms that could not show."""
    n = weights.shape[1]
    top, bottom, null = np.zeros(n), np.zeros(n), np.zeros((len(weights), n))
    for item in seen:
        expected = item.expected(coefficients)
        np.add.at(top, item.owner, expected * item.containment)
        np.add.at(bottom, item.owner, expected**2)
        owners = np.eye(n)[item.owner]
        null += (item.surrogate * expected) @ owners
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(bottom > WEIGHT, top / bottom, np.nan), np.where(bottom > WEIGHT, null / bottom, np.nan)


def _logit(values: Matrix) -> Matrix:
    clipped = np.clip(values, _CLIP, 1 - _CLIP)
    return np.log(clipped / (1 - clipped))
