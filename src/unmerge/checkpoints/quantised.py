"""Checkpoints that are stored quantised: told by their tensors, and refused with the way out that works for their format.

A ``quantization_config`` alone says little: training in four bits leaves it in the configuration of a checkpoint whose tensors are all
of sixteen bits again. What decides is what the tensors are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from unmerge.checkpoints.files import TensorFiles
from unmerge.core.errors import BadInput

#: what packed or quantised weights are stored as; integers under other names are buffers (masks, positions), whatever their shape
_PACKED = {"I8", "U8", "I16", "U16", "I32", "U32", "F4"}
_EIGHT_BIT_FLOATS = ("F8_",)
#: the sides of the blocks that share a scale in DeepSeek's FP8; transformers 5.23 takes a last block that is smaller for another size
_BLOCK = 128
_ORIGINAL = "give the 16-bit checkpoint that it was quantised from"
_SAVE = ".save_pretrained(..., save_original_format=False)"


@dataclass(frozen=True)
class Quantised:
    """A format of quantised weights.

    Attributes:
        method: its name, as ``quantization_config`` writes it.
        marks: endings of tensors that it leaves beside or in place of the weights.
        call: what writes 16-bit weights with transformers; None where nothing does. The tests run each of them.
    """

    method: str
    marks: tuple[str, ...]
    call: str | None = None


FORMATS = (
    Quantised("bitsandbytes", (".absmax", ".quant_map", ".SCB"), f"AutoModelForCausalLM.from_pretrained(...).dequantize(){_SAVE}"),
    Quantised(
        "fp8",
        (".weight_scale_inv",),
        f"AutoModelForCausalLM.from_pretrained(..., quantization_config=FineGrainedFP8Config(dequantize=True)){_SAVE}",
    ),
    Quantised("mxfp4", ("_blocks",), f"AutoModelForCausalLM.from_pretrained(..., quantization_config=Mxfp4Config(dequantize=True)){_SAVE}"),
    Quantised("gptq", (".g_idx", ".qweight", ".qzeros")),
    Quantised("awq", (".qweight", ".qzeros")),
    Quantised("compressed-tensors", (".weight_packed", ".weight_scale", ".weight_zero_point")),
    Quantised("torchao", ("_weight_qdata",)),
    Quantised("mlx", (".biases",)),
)


def refuse_quantised(files: TensorFiles, config: Mapping[str, Any]) -> str | None:
    """Look whether the weights are stored quantised.

    Returns:
        A note where only the configuration says so; None where nothing does.

    Raises:
        BadInput: a tensor's name, a matrix of integers, or eight-bit floats that the configuration calls quantised.
    """
    stated = _stated(config)
    found = _quantised_tensor(files, stated is not None)
    if found is None:
        return f"config.json still calls {files.folder.name} quantised ({stated}); its weights are not, and were read" if stated else None
    scheme = _format_of(files, stated)
    method = stated or (scheme.method if scheme else f"{files.dtype(found)} values")
    hint, what = _way_out(files, scheme), f"a quantised checkpoint ({method})"
    if scheme and stated is None and (resaved := _resaved(files, scheme)):
        what, hint = resaved, f"load the checkpoint that it was made from, and write it so: {scheme.call}"
    raise BadInput(expected="weights as floating-point numbers", found=what, where=files.folder, tensor=found, hint=hint)


def _stated(config: Mapping[str, Any]) -> str | None:
    """The method that a configuration names, if it calls the weights quantised at all."""
    if settings := config.get("quantization_config"):
        method = settings.get("quant_method") if isinstance(settings, dict) else None
        return str(method or "unknown method")
    return "mlx" if isinstance(settings := config.get("quantization"), dict) and "bits" in settings else None


def _quantised_tensor(files: TensorFiles, stated: bool) -> str | None:
    """The first tensor that shows that weights are quantised."""
    marks = tuple(mark for scheme in FORMATS for mark in scheme.marks)
    marked = next((name for name in files.place if name.endswith(marks) and (not name.endswith(".biases") or stated)), None)
    if marked is not None:
        return marked
    packed = next(
        (name for name, shape in files.shapes.items() if len(shape) == 2 and name.endswith("weight") and files.dtype(name) in _PACKED), None
    )
    if packed is not None or not stated:
        return packed
    return next((name for name in files.place if files.dtype(name).startswith(_EIGHT_BIT_FLOATS)), None)


def _format_of(files: TensorFiles, stated: str | None) -> Quantised | None:
    """The format that the configuration names, or else that the tensors' names show."""
    by_method = next((scheme for scheme in FORMATS if scheme.method == stated), None)
    return by_method or next((scheme for scheme in FORMATS if any(name.endswith(scheme.marks) for name in files.place)), None)


def _way_out(files: TensorFiles, scheme: Quantised | None) -> str:
    if scheme is None or scheme.call is None:
        return _ORIGINAL
    if scheme.method == "fp8" and any(
        side % _BLOCK for name, shape in files.shapes.items() if files.dtype(name).startswith(_EIGHT_BIT_FLOATS) for side in shape
    ):
        return f"{_ORIGINAL}, since transformers dequantises only sides that are multiples of {_BLOCK}"
    return f"dequantise it first: {scheme.call}"


def _resaved(files: TensorFiles, scheme: Quantised) -> str | None:
    """What transformers leaves where a dequantised model is saved in its original format, which is the default."""
    if scheme.method == "fp8":
        return "FP8 weights without the quantization_config that they need, as transformers saves what it has dequantised"
    if scheme.method == "mxfp4" and all(files.is_weight(name) for name in files.place if name.endswith(scheme.marks)):
        return "dequantised experts under the names of packed ones (_blocks), as transformers saves what it has dequantised"
    return None
