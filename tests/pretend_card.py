"""A graphics card that is not there: tensors say that they are on it, and refuse to meet others.

Work is done by the processor, so what comes out can be compared; what torch would refuse on a machine with a card is refused here:
a tensor of the card with one of the processor's, and numpy of a tensor on the card. Numbers and tensors without dimensions may meet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

CARD, PROCESSOR = torch.device("cuda"), torch.device("cpu")


class OnCard(Tensor):
    """A tensor that says it is on the card."""

    @classmethod
    def __torch_function__(cls, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError("the pretend card's mode is off")


class PretendCard(TorchFunctionMode):
    """While it is on, the device ``cuda`` can be had.

    Attributes:
        done: names of the operations that took place there.
    """

    def __init__(self) -> None:
        super().__init__()
        self.done: list[str] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = dict(kwargs or {}), getattr(func, "__name__", str(func))
        tensors = [value for value in _flat([args, kwargs]) if isinstance(value, Tensor)]
        there = [value for value in tensors if isinstance(value, OnCard)]
        with torch._C.DisableTorchFunctionSubclass():
            if func == Tensor.device.__get__:  # type: ignore[attr-defined]
                return CARD if there else PROCESSOR
            if name in ("numpy", "__array__") and there:
                raise TypeError("can't convert cuda:0 device type tensor to numpy")
            asked = {value.type for value in _flat([args, kwargs]) if isinstance(value, torch.device)}
            if name in ("to", "cpu"):
                asked |= {"cuda" if isinstance(args[1], OnCard) else "cpu"} if len(args) > 1 and isinstance(args[1], Tensor) else set()
                asked |= {"cpu"} if name == "cpu" else set()
            elif there and any(value.dim() and not isinstance(value, OnCard) for value in tensors):
                raise RuntimeError(f"{name}: expected all tensors to be on the same device, but found cuda:0 and cpu")
            result = func(*_plain(args), **_plain(kwargs))
        goes = "cuda" in asked if asked else bool(there)
        if goes:
            self.done.append(name)
        return _marked(result, goes)


def _flat(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for item in value:
            yield from _flat(item)
    else:
        yield value


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_plain(item) for item in value) if type(value) in (list, tuple) else value
    if isinstance(value, OnCard):
        return value.as_subclass(Tensor)
    return PROCESSOR if isinstance(value, torch.device) else value


def _marked(result: Any, there: bool) -> Any:
    if isinstance(result, Tensor):
        return result.as_subclass(OnCard if there else Tensor)
    if isinstance(result, tuple) and any(isinstance(item, Tensor) for item in result):
        marked: Iterable[Any] = [_marked(item, there) for item in result]
        return type(result)(marked)  # also torch's named ones
    return result
