"""Is this the target's base? Names that differ, and differences that no merge of adapters leaves.

A merge of adapters leaves the tensors that no adapter touches as they are, up to rounding: norms, biases, mostly the
embeddings. The difference to a base that is not the target's own (7B for 7B-Instruct) is everywhere; often it is also
large and has no low rank. So is that of a full fine-tune: the warning names both. That it is everywhere is the safer sign:
a short fine-tune is small and its first steps span few directions, while dare leaves noise of full rank.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from pydantic import BaseModel

from unmerge.checkpoints import Adapter, Checkpoint, Difference
from unmerge.checkpoints.hub import model_name
from unmerge.decomposition.dictionary import Vector
from unmerge.vectors import Gram, row_slices, torch_threads

#: tensors looked at, and rows and columns of each: low rank shows in any block
_TENSORS, _BLOCK = 8, 512
#: a difference this many times the median atom's norm is more than a merge: dare's rescaling at density .1 makes five atoms
#: at weight 1.2 nine times as large as one
LARGE = 16.0
#: more than this share of its square outside the leading half of the directions is no low rank, beyond rounding
FLAT = 0.1
#: changes in this share of the tensors that no atom touches are no unknown adapter's
EVERYWHERE = 0.9
#: changes that a merge leaves in them: one rounding to the coarser dtype (its squared error is at most 3 times the expected
#: one), and averages taken in float32
_ROUNDINGS, _AVERAGES = 4, 64


class BaseCheck(BaseModel):
    """How the difference to the base looks.

    Attributes:
        relative_norm: ||T|| / ||W|| over the tensors looked at.
        norm_in_atoms: ||T|| over the median norm of the atoms.
        flat_share: share of ||T||^2 outside the leading half of the directions, less what rounding leaves there.
        untouched_share: share of ||T||^2 in tensors that no atom touches.
        untouched_changed: how many of those tensors differ by more than rounding, as a share.
        suspicious: everywhere, or large and flat.
    """

    relative_norm: float
    norm_in_atoms: float
    flat_share: float
    untouched_share: float
    untouched_changed: float
    suspicious: bool

    def warning(self) -> str:
        """One line for the user."""
        return (
            f"the difference to the base is {self.norm_in_atoms:.1f} times a typical atom, {self.flat_share:.0%} of it has no low rank "
            f"and {self.untouched_changed:.0%} of the tensors that no atom touches have changed: either this is not the target's base, "
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
        before, after = (side.rows(tensor)[:_BLOCK][:, :_BLOCK] for side in (target.base, target.tuned))
        difference = after.double() - before.double()
        with torch_threads(1):
            squares = torch.linalg.svdvals(difference) ** 2
        norm += float(squares.sum())
        base_norm += float((before.double() ** 2).sum())
        # half of the directions hold half or less of what rounding leaves
        flat += max(float(squares[len(squares) // 2 :].sum()) - _rounding(after, after.dtype) / 2, 0.0)
    in_atoms = float(np.sqrt(total) / np.median(atoms))
    flat_share = flat / norm if norm else 0.0
    others = {tensor: float(square) for tensor, use, square in zip(products.tensors, touched, products.norm_squared, strict=True) if not use}
    changed = sum(_more_than_rounding(target, tensor, square) for tensor, square in others.items() if square > 0)
    changed_share = changed / len(others) if others else 0.0
    return BaseCheck(
        relative_norm=float(np.sqrt(norm / base_norm)) if base_norm else 0.0,
        norm_in_atoms=in_atoms,
        flat_share=flat_share,
        untouched_share=untouched,
        untouched_changed=changed_share,
        suspicious=changed_share >= EVERYWHERE or (flat_share > FLAT and in_atoms > LARGE),
    )


def check_names(base: Checkpoint | None, vectors: Iterable[Vector]) -> list[str]:
    """Warnings for adapters whose recorded base is called otherwise than the base given, or than each other's."""
    recorded = {vector.name: vector.config.base_name for vector in vectors if isinstance(vector, Adapter) and vector.config.base_name}
    if base is not None:
        if base.is_in_memory:  # a state dict does not say which model it is
            return []
        own = _last(model_name(base.folder))
        return [f"{name} records the base {other}, not {own}" for name, other in recorded.items() if _last(other) != own]
    different = sorted({_last(other) for other in recorded.values()})
    return [f"the adapters record different bases: {', '.join(different)}"] if len(different) > 1 else []


def _last(name: str) -> str:
    return name.rstrip("/").rpartition("/")[2].lower()


def _more_than_rounding(target: Difference, tensor: str, square: float) -> bool:
    """Whether a squared change is more than a merge leaves in a tensor that none of its ingredients touches."""
    before, after = (side.rows(tensor) for side in (target.base, target.tuned))
    coarser = max(before.dtype, after.dtype, key=lambda dtype: torch.finfo(dtype).eps)
    to_coarser = to_float32 = 0.0
    for block in row_slices(after.shape):
        values = after[block]
        to_coarser += _ROUNDINGS * _rounding(values, coarser)
        to_float32 += _AVERAGES * _rounding(values, torch.float32)
    return square > to_coarser + to_float32


def _rounding(values: torch.Tensor, dtype: torch.dtype) -> float:
    """Expected squared norm of rounding to a dtype: a twelfth of the squared grid step, summed."""
    wide = values.double()
    step = torch.exp2(torch.floor(torch.log2(wide.abs().clamp_min(torch.finfo(torch.float32).tiny)))) * torch.finfo(dtype).eps
    return float((step**2).sum() / 12)
