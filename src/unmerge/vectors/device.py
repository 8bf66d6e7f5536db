"""Where tensors are worked on: large ones on the graphics card, where there is one.

A tensor of no more than LARGE weights is not worth the way there. Products are taken in float32 there as well (TensorFloat-32 is torch's
choice only where somebody asks for it) and added up in float64, so results agree within what two processors differ by.
"""

from __future__ import annotations

import functools

import torch

from unmerge.core.errors import BadInput
from unmerge.core.settings import DEVICE, device_name
from unmerge.vectors.delta import PROCESSOR, Delta, Shape, Subtracted, is_large


def chosen_device() -> torch.device:
    """The one that ``device=`` or UNMERGE_DEVICE names; else the first card that CUDA or ROCm finds; else the processor.

    Raises:
        BadInput: there is no such device.
    """
    return _found(device_name() or ("cuda" if torch.cuda.is_available() else "cpu"))


@functools.cache
def _found(name: str) -> torch.device:
    """A device that a small decomposition has run on: afterwards torch's libraries are loaded there, which several threads at once may not do."""
    try:
        found = torch.device(name)
        float(torch.linalg.eigvalsh(torch.eye(2, dtype=torch.float64, device=found))[0])
    except (RuntimeError, AssertionError, TypeError) as error:
        raise BadInput(
            expected="cpu, or a card that torch finds and that has float64 (cuda, cuda:1)",
            found=name,
            where=f"--device or {DEVICE}",
            hint=f"leave it out, or install torch for this card ({str(error).splitlines()[0]})",
        ) from error
    return found


def device_for(shape: Shape) -> torch.device:
    """Where a tensor of this shape is worked on."""
    return chosen_device() if is_large(shape) else PROCESSOR


def placed(delta: Delta) -> Delta:
    """A change whose rows are widened and subtracted where it is worked on; low-rank changes are moved by who multiplies them."""
    return delta.on(device_for(delta.shape)) if isinstance(delta, Subtracted) else delta
