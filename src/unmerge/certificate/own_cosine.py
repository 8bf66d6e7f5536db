"""How like an atom a target is within the atom's own subspaces: what tells a relative from a stranger that shares directions.

Adapters that were trained from one initialisation, or on one base for long, have rows and columns in common without having learnt the same.
They pass a test of containment by what they share; but with U and W the atom's singular directions, and S its singular values,

    cos = <X, S> / (||X|| ||S||),    X = U^T (T - sum c_i V_i) W      over all tensors; V_i: the other components

is near 0 for them, since X says which of the shared directions belong together, and how strongly. For the atom itself it is 1.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from unmerge.certificate.evidence import TensorEvidence

#: a relative shows at least this cosine. Of 20 dictionaries of ``make families`` in 120 targets the relatives that the test of presence passes have
#: .60 to 1.00 (other checkpoints of one training), strangers that it passes at most .61 (one author's other tasks; one seed: at most .40), and what
#: full fine-tuning at 3e-4 leaves at most .58. From .58 to .62 the claims of at most two atoms change
LEAST = 0.6


def own_cosine(seen: Sequence[TensorEvidence], atom: int, others: Mapping[int, float], tensors: Collection[str] | None = None) -> float:
    """The signed cosine of an atom and what a target holds in the atom's own leading directions; 0 where it holds nothing there.

    Args:
        seen: what the tensors say.
        atom: its place in the dictionary.
        others: coefficients of the other components, which are subtracted first.
        tensors: those that are looked at; all where not given.
    """
    inner = contained = own_square = 0.0
    for item in seen if tensors is None else [item for item in seen if item.tensor in tensors]:
        own = item.owner == atom
        left = np.diag(item.signal_values)
        for other, coefficient in others.items():
            part = item.owner == other
            left = left - (item.left[:, part] * (coefficient * item.values[part])) @ item.right[:, part].T
        within = item.left[:, own].T @ left @ item.right[:, own]
        inner += float(item.values[own] @ np.diag(within))
        contained += float(np.square(within).sum())
        own_square += float(np.square(item.values[own]).sum())
    return inner / float(np.sqrt(contained * own_square)) if contained and own_square else 0.0
