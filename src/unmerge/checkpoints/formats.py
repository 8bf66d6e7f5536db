"""Files of weights that are neither a checkpoint nor an adapter in PEFT's layout: each is named as what it is, by its content.

One small recogniser a format; what a file is called does not count. A format that is read here one day leaves this list.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from unmerge.checkpoints.pickles import PICKLES, holds_weights
from unmerge.core.errors import BadInput

#: the largest header that safetensors itself accepts
_LARGEST_HEADER = 100_000_000
#: bytes of a file that are looked at; a GGUF file says there what it is
_FIRST = 1 << 16
#: names of files that are where they should be
_IN_PLACE = re.compile(r"-\d+-of-\d+\.|^adapter_model\.safetensors$")
_PEFT = "put it in a folder of its own as adapter_model.safetensors, beside its adapter_config.json"
_MODEL = "put it in a folder of its own as model.safetensors, beside its config.json"
_ASK = "give the safetensors that it was made from"


@dataclass(frozen=True)
class Look:
    """What is seen of a file: its first bytes, and the names of its tensors where it is a safetensors file."""

    file: Path

    @cached_property
    def head(self) -> bytes:
        """The first bytes."""
        with self.file.open("rb") as stream:
            return stream.read(_FIRST)

    @cached_property
    def tensors(self) -> tuple[str, ...]:
        """The names of a safetensors file's tensors, from its header; none of another file."""
        length = int.from_bytes(self.head[:8], "little")
        if self.head[8:9] != b"{" or length > _LARGEST_HEADER:
            return ()
        with self.file.open("rb") as stream:
            stream.seek(8)
            try:
                header = json.loads(stream.read(length))
            except ValueError:
                return ()
        return tuple(name for name in header if name != "__metadata__")

    @cached_property
    def members(self) -> list[str]:
        """The names in a zip archive; none of another file."""
        if not self.head.startswith(b"PK"):
            return []
        try:
            with zipfile.ZipFile(self.file) as archive:
                return archive.namelist()
        except zipfile.BadZipFile:
            return []

    @property
    def is_gguf(self) -> bool:
        """Whether it begins as GGUF does."""
        return self.head.startswith(b"GGUF")

    def has(self, *parts: str) -> bool:
        """Whether each of some parts ends, or begins, the name of a tensor."""
        return all(any(name.endswith(part) or name.startswith(part) for name in self.tensors) for part in parts)


@dataclass(frozen=True)
class Format:
    """A format of weights.

    Attributes:
        what: it is, after "found".
        hint: what to do with it.
        is_it: the recogniser.
    """

    what: str
    hint: str
    is_it: Callable[[Look], bool]


#: the first that recognises a file names it
FORMATS = (
    Format(
        "a GGUF adapter of llama.cpp",
        "give the PEFT adapter that it was converted from",
        lambda look: look.is_gguf and b"adapter.type" in look.head,
    ),
    Format("a GGUF file of llama.cpp", "give the safetensors checkpoint that it was converted from", lambda look: look.is_gguf),
    Format(
        "a LoRA of an image model (diffusers, kohya)",
        "give adapters and checkpoints of a language model",
        lambda look: look.has("lora_unet_") or look.has("unet.") or any("transformer_blocks." in name for name in look.tensors),
    ),
    Format(
        "a LoRA in kohya's form (lora_down, lora_up, alpha)",
        "write it as a PEFT adapter: lora_A is lora_down, lora_B is lora_up, lora_alpha is alpha",
        lambda look: look.has(".lora_down.weight", ".lora_up.weight"),
    ),
    Format("a LyCORIS adapter (LoHa)", "write it as a PEFT adapter of type LOHA", lambda look: look.has(".hada_w1_a", ".alpha")),
    Format(
        "an MLX adapter (lora_a, lora_b)",
        "put it in a folder of its own as adapters.safetensors, beside its adapter_config.json",
        lambda look: look.has(".lora_a", ".lora_b"),
    ),
    Format(
        "a torchtune adapter in its own names (lora_a.weight, lora_b.weight)",
        "give the PEFT adapter that torchtune writes beside it (adapter_model.safetensors)",
        lambda look: look.has(".lora_a.weight", ".lora_b.weight"),
    ),
    Format("a LoRA in PEFT's names, by itself", _PEFT, lambda look: look.has(".lora_A.weight", ".lora_B.weight")),
    Format("weights in a safetensors file by itself", _MODEL, lambda look: bool(look.tensors)),
    Format("an HDF5 file (Keras, TensorFlow)", _ASK, lambda look: look.head.startswith(b"\x89HDF\r\n")),
    Format("a NumPy archive", _ASK, lambda look: any(name.endswith(".npy") for name in look.members)),
    Format(
        "a pickle, which is never loaded because loading it runs code",
        "convert it to safetensors with the library that wrote it",
        lambda look: look.file.suffix in PICKLES and holds_weights(look.file),
    ),
)


def format_of(file: Path) -> Format | None:
    """What a file of weights is; None for any other file."""
    if not file.is_file():
        return None
    look = Look(file)
    return next((known for known in FORMATS if known.is_it(look)), None)


def named_format(files: Iterable[Path], expected: str) -> BadInput | None:
    """The error that names the first file of a known format; None where there is none.

    Shards are parts of a checkpoint, not files by themselves, and a PEFT adapter's weights are where they should be.
    """
    for file in files:
        if not _IN_PLACE.search(file.name) and (known := format_of(file)):
            return BadInput(expected=expected, found=known.what, where=file, hint=known.hint)
    return None


def is_image_model(folder: Path) -> bool:
    """Whether a folder holds a pipeline or a model of diffusers, by the class that its configuration names."""
    for name in ("model_index.json", "config.json"):
        try:
            raw = json.loads((folder / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(raw, dict) and "_diffusers_version" in raw:
            return True
    return False
