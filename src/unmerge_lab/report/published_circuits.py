"""What was published of L3D (arXiv 2504.00194, its draft and its code), to be set beside ours.

The published gradients are (2 f - f_r) J, not those of a squared error, and the published "r2" is Pearson's r: reconstructions of
TMS and TMCS are not of the same gradients as ours.
"""

from __future__ import annotations

#: reconstruction by toy model and (subnetworks, rank)
RECONSTRUCTION: dict[str, dict[tuple[int, int], float]] = {
    "tms": {(5, 1): 0.19},
    "parallel": {(15, 1): 0.15},
    "tmcs": {(10, 1): 0.064},
    "high-rank": dict(zip([(8, rank) for rank in range(1, 9)], (0.142, 0.142, 0.143, 0.143, 0.144, 0.144, 0.277, 0.248), strict=True)),
    "high-rank-shared": {(8, rank): 0.15 for rank in range(1, 9)},
    "square": {(3, 1): 0.558, (5, 1): 0.372, (10, 1): 0.084, (15, 1): 0.033, (5, 2): 0.32},
}
#: targets of ours, by toy model and (subnetworks, rank)
TARGETS: dict[str, dict[tuple[int, int], float]] = {
    "tms": {(5, 1): 0.20},
    "parallel": {(15, 1): 0.21, (20, 1): 0.17},
    "tmcs": {(10, 1): 0.17},
    "high-rank": {(8, rank): 0.15 for rank in range(1, 9)},
    "high-rank-shared": {(8, rank): 0.15 for rank in range(1, 9)},
    "square": {(3, 1): 0.55, (5, 1): 0.32, (5, 2): 0.32, (10, 1): 0.10, (15, 1): 0.06},
    "square-5": {(3, 1): 0.32, (5, 1): 0.18, (10, 1): 0.06, (15, 1): 0.03},
    "square-early": {(3, 1): 0.55, (5, 1): 0.32, (5, 2): 0.32, (10, 1): 0.10, (15, 1): 0.06},
    "square-5-early": {(3, 1): 0.32, (5, 1): 0.18, (10, 1): 0.06, (15, 1): 0.03},
}
#: feature superposition, circuit superposition, rank above 2, complex landscape
PROPERTIES: dict[str, tuple[bool, bool, bool, bool]] = {
    "tms": (True, False, False, False),
    "parallel": (True, False, False, False),
    "tmcs": (True, True, False, False),
    "high-rank": (True, False, True, False),
    "high-rank-shared": (True, False, False, False),
    "square": (False, True, False, True),
    "square-5": (False, True, False, True),
    "square-early": (False, True, False, True),
    "square-5-early": (False, True, False, True),
}
