"""A model checkpoint: configuration and weights, tied embeddings resolved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from unmerge.checkpoints.files import TensorFiles, existing_folder, refuse_quantised
from unmerge.core.errors import BadInput
from unmerge.core.records import Source, read_json
from unmerge.vectors import Shape

HEAD = "lm_head.weight"
_EMBEDDINGS = "embed_tokens.weight"


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint in Hugging Face layout, sharded or not.

    Attributes:
        folder: where it lies.
        config: its ``config.json``.
        files: its weights.
    """

    folder: Path
    config: Mapping[str, Any]
    files: TensorFiles

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
        refuse_quantised(files, config)
        return Checkpoint(folder, config, files)

    @property
    def is_tied(self) -> bool:
        """Whether the output head is the embedding."""
        return bool(self.config.get("tie_word_embeddings", False))

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

    def read(self, tensor: str) -> Tensor:
        """A tensor in its own dtype; the output head of a tied model is its embedding."""
        return self.files.read(self._stored(tensor) or tensor)

    def source(self) -> Source:
        """Hashes of weights and configuration."""
        return self.files.source(self.folder / "config.json")

    def _stored(self, tensor: str) -> str | None:
        if tensor in self.shapes:
            return tensor
        if tensor == HEAD and self.is_tied:
            return next((name for name in self.shapes if name.endswith(_EMBEDDINGS)), None)
        return None
