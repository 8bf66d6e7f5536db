"""Is this the target's base? Names that differ, and differences that no merge of adapters leaves.

A merge of adapters changes few directions by little and leaves the tensors that no adapter touches as they are. The
difference to a base that is not the target's own (7B for 7B-Instruct) is large, has no low rank and is everywhere. So is
that of a full fine-tune: the warning names both.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from pydantic import BaseModel

from unmerge.checkpoints import Adapter, Checkpoint, Difference
from unmerge.decomposition.dictionary import Vector
from unmerge.vectors import Gram

#: tensors looked at, and rows and columns of each: low rank shows in any block
_TENSORS, _BLOCK = 8, 512
#: a difference this many times the median atom's norm is more than a merge: 8 covers five atoms at weight 1.2, dare's
#: rescaling at density .1 included
LARGE = 8.0
#: more than this share of its square outside the leading half of the directions is no low rank, beyond rounding
FLAT = 0.1


class BaseCheck(BaseModel):
    """How the difference to the base looks.

    Attributes:
        relative_norm: ||T|| / ||W|| over the tensors looked at.
        norm_in_atoms: ||T|| over the median norm of the atoms.
        flat_share: share of ||T||^2 outside the leading half of the directions, less what rounding leaves there.
        untouched_share: share of ||T||^2 in tensors that no atom touches.
        suspicious: large and flat, or flat and in untouched tensors.
    """

    relative_norm: float
    norm_in_atoms: float
    flat_share: float
    untouched_share: float
    suspicious: bool

    def warning(self) -> str:
        """One line for the user."""
        return (
            f"the difference to the base is {self.norm_in_atoms:.1f} times a typical atom, {self.flat_share:.0%} of it has no low rank "
            f"and {self.untouched_share:.0%} lies in tensors that no atom touches: either this is not the target's base, "
            "or the target was fine-tuned as a whole"
        )


def check_base(target: Difference, products: Gram) -> BaseCheck:
    """Look at size and spectrum of the difference between a checkpoint and the base."""
    atoms = np.sqrt(np.maximum(np.einsum("mii->i", products.gram), 0.0))
    touched = np.einsum("mii->m", products.gram) > 0
    total = float(products.norm_squared.sum())
    untouched = float(products.norm_squared[~touched].sum()) / total
    matrices = [tensor for tensor, use in zip(products.tensors, touched, strict=True) if use and len(target.shapes.get(tensor, ())) == 2]
    looked = [matrices[place] for place in np.linspace(0, len(matrices) - 1, min(_TENSORS, len(matrices))).astype(int)]
    norm = base_norm = flat = 0.0
    for tensor in looked:
        before, after = (side.read(tensor)[:_BLOCK, :_BLOCK] for side in (target.base, target.tuned))
        difference = after.double() - before.double()
        squares = torch.linalg.svdvals(difference) ** 2
        norm += float(squares.sum())
        base_norm += float((before.double() ** 2).sum())
        # half of the directions hold half or less of what rounding leaves
        flat += max(float(squares[len(squares) // 2 :].sum()) - _rounding(after) / 2, 0.0)
    in_atoms = float(np.sqrt(total) / np.median(atoms))
    flat_share = flat / norm if norm else 0.0
    return BaseCheck(
        relative_norm=float(np.sqrt(norm / base_norm)) if base_norm else 0.0,
        norm_in_atoms=in_atoms,
        flat_share=flat_share,
        untouched_share=untouched,
        suspicious=flat_share > FLAT and (in_atoms > LARGE or untouched > FLAT),
    )


def check_names(base: Checkpoint | None, vectors: Iterable[Vector]) -> list[str]:
    """Warnings for adapters whose recorded base is called otherwise than the base given, or than each other's."""
    recorded = {vector.name: vector.config.base_name for vector in vectors if isinstance(vector, Adapter) and vector.config.base_name}
    if base is not None:
        own = _last(model_name(base.folder))
        return [f"{name} records the base {other}, not {own}" for name, other in recorded.items() if _last(other) != own]
    different = sorted({_last(other) for other in recorded.values()})
    return [f"the adapters record different bases: {', '.join(different)}"] if len(different) > 1 else []


def model_name(folder: Path) -> str:
    """What a model's folder calls it: its own name, or the repository's in a hub cache (``models--owner--name/snapshots/...``)."""
    parts: Sequence[str] = folder.resolve().parts
    cached = next((part for part in parts if part.startswith("models--")), None)
    return cached.removeprefix("models--").replace("--", "/") if cached else parts[-1]


def _last(name: str) -> str:
    return name.rstrip("/").rpartition("/")[2].lower()


def _rounding(values: torch.Tensor) -> float:
    """Expected squared norm of rounding to the tensor's dtype: a twelfth of the squared grid step, summed."""
    wide = values.double()
    step = torch.exp2(torch.floor(torch.log2(wide.abs().clamp_min(torch.finfo(torch.float32).tiny)))) * torch.finfo(values.dtype).eps
    return float((step**2).sum() / 12)
