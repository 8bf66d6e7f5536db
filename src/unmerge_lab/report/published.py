"""What the published UNMERGE study measured (its public reports, September 2025), to be set beside ours.

Qwen2.5-7B-Instruct, 15 LoRA adapters of rank 32 on q, k, v and o, 8 of them in the dictionary; 72 merges by mergekit, 24 a group, of 2 to
5 adapters; task vectors cut from 822 million to about 100,000 entries.
"""

from __future__ import annotations

PrecisionRecall = tuple[float, float]

_MERGES = ("task_arithmetic", "linear", "ties", "dare_linear")
_PRECISION_RECALL = """
known nnls          1.00/1.00  1.00/1.00  1.00/1.00  1.00/1.00
known omp           1.00/1.00  1.00/1.00  0.56/1.00  1.00/1.00
known lasso         0.83/0.36  0.83/0.36  1.00/0.67  1.00/0.40
known elastic_net   0.62/1.00  0.62/1.00  0.87/1.00  0.62/1.00
known ridge         0.54/1.00  0.54/1.00  0.54/1.00  0.54/1.00
known dot           0.55/1.00  0.55/1.00  0.54/1.00  0.55/1.00
mixed nnls          0.30/1.00  0.30/1.00  0.41/1.00  0.31/1.00
mixed omp           0.27/1.00  0.29/1.00  0.26/1.00  0.28/1.00
mixed lasso         0.50/0.25  0.50/0.25  1.00/0.92  0.67/0.42
"""


def _parsed() -> dict[tuple[str, str, str], PrecisionRecall]:
    found = {}
    for line in _PRECISION_RECALL.split("\n")[1:-1]:
        group, method, *cells = line.split()
        for merge, cell in zip(_MERGES, cells, strict=True):
            precision, _, recall = cell.partition("/")
            found[group, method, merge] = (float(precision), float(recall))
    return found


#: by group, method and merge
PRECISION_RECALL = _parsed()
#: 1 - cos^2 of nnls in the known group, by merge; and over all merges, by group
COSINE_ERROR_KNOWN = {"task_arithmetic": 0.0885, "linear": 0.172, "ties": 0.283, "dare_linear": 0.427}
COSINE_ERROR = {"known": 0.243, "mixed": 0.430, "unknown": 0.677}
#: components named in the unknown group, where there is none, and atoms in the dictionary
NAMED_UNKNOWN, ATOMS = 6.56, 8
#: seconds a decomposition, after masking
SECONDS = {"dot": 0.027, "ridge": 0.030, "omp": 0.035, "lasso": 0.111, "elastic_net": 0.153, "nnls": 0.507}


def reference(group: str, method: str, merge: str) -> tuple[str, PrecisionRecall] | None:
    """The published numbers to compare with: the method's own, or those of the published method with the highest F1 in that place."""
    own = PRECISION_RECALL.get((group, method, merge))
    if own is not None:
        return method, own
    others = {name: values for (of, name, how), values in PRECISION_RECALL.items() if (of, how) == (group, merge)}
    best = max(others, key=lambda name: f1(*others[name]), default=None)
    return (best, others[best]) if best is not None else None


def f1(precision: float, recall: float) -> float:
    """The harmonic mean of precision and recall."""
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def verdict(ours: PrecisionRecall, theirs: PrecisionRecall) -> str:
    """At the published two decimals. Better: neither precision nor recall is lower and one is higher; split: one is higher, one lower."""
    signs = {(round(our, 2) > their) - (round(our, 2) < their) for our, their in zip(ours, theirs, strict=True)}
    if signs == {0}:
        return "equal"
    return "better" if -1 not in signs else "worse" if 1 not in signs else "split"
