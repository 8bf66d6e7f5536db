"""Subtraction in memory: one model, its tensors changed and put back bit for bit, no reload between conditions.

A tensor of the target less c dW is computed in float32 and rounded once, to the dtype that the target is stored in, as ``unmerge ablate``
writes it; the model may hold it in a wider one. Put back are the bits that were kept, not a sum. Only the tensors that change are kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from unmerge.checkpoints import Difference
from unmerge.checkpoints.vocabulary import is_outside
from unmerge.core.errors import BadInput
from unmerge.decomposition.dictionary import Vector
from unmerge.vectors import TaskVector
from unmerge.verification.subtract import fits, less

#: (task vector, coefficient) pairs
Removed = Sequence[tuple[TaskVector, float]]


class InPlace:
    """A model in memory from which task vectors can be taken for a while.

    Args:
        model: a ``transformers`` causal language model.
        stored: the dtype that a tensor is rounded to, by its name; one that is not named stays in the model's own.
    """

    def __init__(self, model: Any, stored: Mapping[str, torch.dtype]) -> None:
        self.model = model
        self._stored = stored

    @contextmanager
    def without(self, removed: Removed) -> Iterator[None]:
        """The model less some task vectors, while the block runs.

        Raises:
            BadInput: the model has no such tensor, or one of another shape.
        """
        kept: list[tuple[Tensor, Tensor]] = []
        try:
            with torch.no_grad():
                for tensors in self._by_parameter(removed).values():
                    parameter = parameter_of(self.model, tensors[0])
                    before = parameter.detach().cpu()  # on a GPU there is no room for a second copy; here it is the parameter itself
                    kept.append((parameter, before if parameter.is_cuda else parameter.clone()))
                    here = ((vector.delta(tensor), coefficient) for tensor in tensors for vector, coefficient in removed if tensor in vector.shapes)
                    parameter.copy_(less(before, here).to(self._stored.get(tensors[0], parameter.dtype)))
            yield
        finally:
            with torch.no_grad():
                for parameter, values in kept:
                    parameter.copy_(values)

    def _by_parameter(self, removed: Removed) -> dict[int, list[str]]:
        """The tensors that change, those that are one parameter (a tied head) together: it is rounded once, and kept once."""
        together: dict[int, list[str]] = {}
        for vector, _ in removed:
            for tensor, shape in vector.shapes.items():
                parameter = parameter_of(self.model, tensor)
                if not fits(tuple(parameter.shape), shape, vocabulary=is_outside(tensor)):
                    raise _misfit(vector, tensor, f"shape {tuple(parameter.shape)}", f"shape {shape}")
                names = together.setdefault(id(parameter), [])
                if tensor not in names:
                    names.append(tensor)
        return together


def parameter_of(model: Any, tensor: str) -> Tensor:
    """A parameter of a loaded model by the name of its tensor in the files, which may leave out what the model calls its backbone.

    Raises:
        BadInput: there is none.
    """
    for name in (tensor, f"{getattr(model, 'base_model_prefix', '')}.{tensor}"):
        try:
            found: Tensor = model.get_parameter(name)
        except AttributeError:
            continue
        return found
    raise BadInput(
        expected="a parameter of the loaded model",
        found="none of that name",
        where=type(model).__name__,
        tensor=tensor,
        hint="save target and base with transformers' save_pretrained, which brings names up to date",
    )


def _misfit(vector: TaskVector, tensor: str, expected: str, found: str) -> BadInput:
    return BadInput(expected=f"{expected}, as in the target", found=found, where=vector.name, tensor=tensor, hint="remove another component")


def stored_dtypes(target: Vector) -> dict[str, torch.dtype]:
    """The dtype that each tensor of a target is stored in; none for an adapter, which is merged into its base in float32."""
    return {tensor: target.tuned.dtype(tensor) for tensor in target.shapes} if isinstance(target, Difference) else {}
