"""Loading a model for training or scoring: on a GPU when there is one, in float32 where there is room for it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

from unmerge.checkpoints.files import existing_folder
from unmerge.checkpoints.hub import located
from unmerge.core.errors import BadInput, need, one_line
from unmerge.core.quiet import no_bars

#: what a model's weights are held in: as numbers, or in four bits (bitsandbytes' NF4), which only trains adapters
Weights = Literal["float32", "bfloat16", "nf4"]
#: float32 weights may take this share of the memory; the rest is for what is computed with them
_SHARE = 0.4


def load_model(folder: Path, name: str | None = None, weights: Weights | None = None) -> tuple[Any, Any]:
    """A causal language model and its tokenizer.

    Args:
        folder: of the checkpoint, or its name on the hub.
        name: what an adapter will record as its base.
        weights: what to hold them in. By default float32, or bfloat16 where float32 would take more than two fifths of the memory
            (of the GPU's, where there is one).

    Raises:
        BadInput: no model, or none that transformers can load.
        MissingExtra: transformers is not installed, or for ``nf4`` bitsandbytes.
    """
    transformers = need("transformers", "train")
    import torch

    folder = existing_folder(located(folder))
    tokenizer = load_tokenizer(folder)
    settings: dict[str, Any] = {"dtype": getattr(torch, _dtype(folder, weights))}
    if torch.cuda.is_available():
        settings["device_map"] = {"": torch.cuda.current_device()}
    if weights == "nf4":
        need("bitsandbytes", "quantised")
        settings["quantization_config"] = transformers.BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=torch.bfloat16
        )
    try:
        with no_bars("transformers"):
            model = transformers.AutoModelForCausalLM.from_pretrained(folder, **settings)
    except Exception as error:
        raise _unloadable(folder, error) from error
    model.name_or_path = name or str(folder)  # PEFT copies it into the adapter's configuration
    return model, tokenizer


def load_tokenizer(folder: Path) -> Any:
    """A model's tokenizer.

    Raises:
        BadInput: none, or none that transformers can load.
    """
    transformers = need("transformers", "train")
    if not any(entry.name.startswith(("tokenizer", "vocab")) for entry in existing_folder(folder).iterdir()):
        # transformers would make up an empty one, and train on nothing but unknown tokens
        raise BadInput(expected="a model with its tokenizer", found="no tokenizer", where=folder, hint="save it beside the model (save_pretrained)")
    try:
        return transformers.AutoTokenizer.from_pretrained(folder)
    except Exception as error:
        raise _unloadable(folder, error) from error


def _unloadable(folder: Path, error: Exception) -> BadInput:
    """transformers raises OSError, ValueError, KeyError and more, and speaks of its hub."""
    return BadInput(
        expected="a causal language model with its tokenizer",
        found=f"{type(error).__name__}: {one_line(str(error))[:200]}",
        where=folder,
        hint="save both into the folder (save_pretrained)",
    )


def _dtype(folder: Path, weights: Weights | None) -> str:
    if weights is not None:
        return "bfloat16" if weights == "nf4" else weights
    return "float32" if 4 * _parameters(folder) <= _SHARE * memory() else "bfloat16"


def _parameters(folder: Path) -> int:
    """So many in 16 bits, by the size of the files."""
    return sum(file.stat().st_size for file in folder.glob("*.safetensors")) // 2


def memory() -> int:
    """Bytes of the GPU's memory, or of the machine's where there is none."""
    import torch

    if torch.cuda.is_available():
        return int(torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
