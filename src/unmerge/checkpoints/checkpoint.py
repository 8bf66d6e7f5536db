"""A model checkpoint: configuration and weights, tied embeddings resolved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unmerge.checkpoints.files import DTYPES, GATHER, TensorFiles, existing_folder
from unmerge.checkpoints.quantised import refuse_quantised
from unmerge.core.errors import BadInput
from unmerge.core.records import Source, read_json
from unmerge.vectors import Rows, Shape

HEAD = "lm_head.weight"
_EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "embed_in.weight", "word_embeddings.weight")
_HEADS = (HEAD, "embed_out.weight")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint in Hugging Face layout, sharded or not.

    Attributes:
        folder: where it lies.
        config: its ``config.json``.
        files: its weights.
        notes: what the user should know of how it was read.
    """

    folder: Path
    config: Mapping[str, Any]
    files: TensorFiles
    notes: tuple[str, ...] = ()

    @staticmethod
    def open(folder: Path) -> Checkpoint:
        """Open a checkpoint; only headers are read.

        Raises:
            BadInput: not a folder, no checkpoint, a pickle, damaged or quantised weights.
        """
        config = read_json(existing_folder(folder) / "config.json", "a model's config.json")
        if not isinstance(config, dict):
            raise BadInput(expected="a JSON object", found="something else", where=folder / "config.json", hint="download the file again")
        files = TensorFiles.find(folder, "model")
        if not files.place:
            raise BadInput(expected="weights", found="none", where=folder, hint="download or write the checkpoint again")
        _refuse_empty(files)
        _refuse_unmerged(files)
        note = refuse_quantised(files, config)
        return Checkpoint(folder, config, files, (note,) if note else ())

    @cached_property
    def is_tied(self) -> bool:
        """Whether the output head is the embedding.

        A head that is not stored is tied, unless the configuration says otherwise: it may leave the setting out where it is
        the architecture's own. A head that is stored all the same is tied if its values are the embedding's, which are
        compared; transformers does the same.
        """
        if self.config.get("tie_word_embeddings") is False:
            return False
        if self._embedding is None or HEAD not in self.shapes:
            return True
        return torch.equal(self.read(HEAD), self.read(self._embedding))

    @cached_property
    def shapes(self) -> Mapping[str, Shape]:
        """The shape of every stored tensor; a tied output head that is not stored is not among them."""
        return self.files.shapes

    def holds(self, tensor: str) -> bool:
        """Whether the tensor is stored, or tied to one that is."""
        return self._stored(tensor) is not None

    def shape(self, tensor: str) -> Shape:
        """The shape of a tensor that is held."""
        return self.shapes[self._stored(tensor) or tensor]

    def copies(self, tensor: str) -> tuple[str, ...]:
        """The names of all stored tensors that are one weight with a tensor; the embedding comes before the head that is tied to it."""
        if (tensor == HEAD or is_embedding(tensor)) and self.is_tied:
            return tuple(name for name in (self._embedding, HEAD) if name is not None and name in self.shapes)
        return (tensor,) if tensor in self.shapes else ()

    def read(self, tensor: str) -> Tensor:
        """A tensor in its own dtype; the output head of a tied model is its embedding."""
        return self.files.read(self._stored(tensor) or tensor)

    def rows(self, tensor: str) -> Rows:
        """A tensor that is read by rows, when they are asked for."""
        return self.files.rows(self._stored(tensor) or tensor)

    def is_weight(self, tensor: str) -> bool:
        """Whether a tensor that is held is of floating-point numbers."""
        return self.files.is_weight(self._stored(tensor) or tensor)

    def dtype(self, tensor: str) -> torch.dtype:
        """The dtype of a tensor of weights that is held, from the header alone."""
        return DTYPES[self.files.dtype(self._stored(tensor) or tensor)]

    def source(self) -> Source:
        """Hashes of weights and configuration."""
        return self.files.source(self.folder / "config.json")

    @cached_property
    def _embedding(self) -> str | None:
        return next((name for name in self.shapes if is_embedding(name)), None)

    def _stored(self, tensor: str) -> str | None:
        """The name that a tensor is stored under: its own, or that of the one it is tied to, whichever way round."""
        if tensor in self.shapes:
            return tensor
        if tensor == HEAD and self.is_tied:
            return self._embedding
        if is_embedding(tensor) and self._embedding is None and HEAD in self.shapes and self.is_tied:
            return HEAD
        return None


def _refuse_empty(files: TensorFiles) -> None:
    """Raise BadInput for weights that DeepSpeed ZeRO-3 saved without gathering them: they have no entries."""
    if empty := next((name for name, shape in files.shapes.items() if 0 in shape and name.endswith((".weight", ".bias"))), None):
        raise BadInput(expected="whole weights", found=f"an empty one (shape {files.shapes[empty]})", where=files.folder, tensor=empty, hint=GATHER)


def _refuse_unmerged(files: TensorFiles) -> None:
    """Raise BadInput for a model that was written with an adapter still beside its weights, as its state dict has them."""
    if beside := next((name for name in files.place if ".base_layer." in name or ".lora_A." in name), None):
        raise BadInput(
            expected="merged weights",
            found="a model that was saved before its adapter was merged (base_layer, lora_A, lora_B)",
            where=files.folder,
            tensor=beside,
            hint="merge it (merge_and_unload), then save it; or give its base and its adapter",
        )


def is_embedding(tensor: str) -> bool:
    """Whether a tensor is a token embedding, by its name."""
    return tensor.endswith(_EMBEDDINGS)


def is_vocabulary(tensor: str) -> bool:
    """Whether the first dimension of a tensor is the vocabulary, by its name."""
    return tensor.endswith((*_EMBEDDINGS, *_HEADS))
