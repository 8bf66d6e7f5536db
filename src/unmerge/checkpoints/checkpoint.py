"""A model checkpoint: configuration and weights, tied embeddings resolved."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unmerge.checkpoints.files import DTYPES, GATHER, TensorFiles, existing_folder
from unmerge.checkpoints.parts import Part, parts_of
from unmerge.checkpoints.quantised import refuse_quantised
from unmerge.checkpoints.tensor_names import match_names
from unmerge.checkpoints.vocabulary import embedding_of, is_embedding, is_head, is_outside, vocabulary_of
from unmerge.core.errors import BadInput
from unmerge.core.records import Source, read_json
from unmerge.core.sources import MEMORY
from unmerge.vectors import Rows, Shape


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint in Hugging Face layout, sharded or not.

    Attributes:
        folder: where it lies.
        config: its ``config.json``.
        files: its weights, under the names that they are stored by.
        parts: its tensors: where each lies in ``files``. A tensor has its stored name, that of an expert, or the one that another model
            has for it (see ``like``).
        names: the stored or the expert's name -> the other model's, of the tensors that have one.
        notes: what the user should know of how it was read.
    """

    folder: Path
    config: Mapping[str, Any]
    files: TensorFiles
    parts: Mapping[str, Part]
    names: Mapping[str, str] = field(default_factory=dict)
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
        return Checkpoint(folder, config, files, parts_of(files.shapes), notes=(note,) if note else ())

    def like(self, reference: Checkpoint) -> Checkpoint:
        """The same, its tensors called as in another checkpoint of the same architecture.

        Raises:
            BadInput: two tensors cannot be told apart.
        """
        names = match_names(self.shapes, reference.shapes, self.folder)
        return replace(self, parts={names.get(tensor, tensor): part for tensor, part in self.parts.items()}, names=names) if names else self

    def first_rows(self, rows: Mapping[str, int]) -> Checkpoint:
        """The same, with no more than the first rows of some tensors."""
        held = {self._stored(tensor): count for tensor, count in rows.items()}
        return replace(self, parts={tensor: part.rows(held[tensor]) if tensor in held else part for tensor, part in self.parts.items()})

    @property
    def is_in_memory(self) -> bool:
        """Whether it is a state dict, without files."""
        return self.folder == MEMORY

    @cached_property
    def is_tied(self) -> bool:
        """Whether the output head is the embedding.

        A head that is not stored is tied, unless the configuration says otherwise: it may leave the setting out where it is
        the architecture's own. A head that is stored all the same is tied if its values are the embedding's, which are
        compared; transformers does the same.
        """
        if self.config.get("tie_word_embeddings") is False:
            return False
        if self.embedding is None or self.head is None:
            return True
        return torch.equal(self.read(self.head), self.read(self.embedding))

    @cached_property
    def shapes(self) -> Mapping[str, Shape]:
        """The shape of every tensor; a tied output head that is not stored is not among them."""
        return {tensor: part.shape for tensor, part in self.parts.items()}

    @cached_property
    def vocabulary(self) -> frozenset[str]:
        """The tensors that have one row a token."""
        return vocabulary_of(self.shapes, self.config)

    @cached_property
    def embedding(self) -> str | None:
        """The input embedding, if it is stored."""
        return embedding_of(self.shapes, self.config)

    @cached_property
    def head(self) -> str | None:
        """The output head, if it is stored."""
        return next((tensor for tensor in self.shapes if is_head(tensor)), None)

    @cached_property
    def held_in(self) -> Mapping[str, tuple[str, ...]]:
        """The tensors that lie in each stored one, by its name: the experts of a layer lie in one."""
        found: dict[str, list[str]] = defaultdict(list)
        for tensor, part in self.parts.items():
            found[part.stored].append(tensor)
        return {stored: tuple(tensors) for stored, tensors in found.items()}

    def is_transposed(self, tensor: str) -> bool | None:
        """Whether the matrix of a module is stored (in, out), as transformers' Conv1D does; None where nothing tells.

        A square one does not show it. Its bias would, if another module of its name, or any in the layers, has a matrix that is not square.
        """
        leaf = tensor.split(".")[-2:]
        return self._transposed.get(leaf[0], self._transposed.get("")) if not is_outside(tensor) else False

    def holds(self, tensor: str) -> bool:
        """Whether the tensor is stored, or tied to one that is."""
        return self._stored(tensor) is not None

    def is_vocabulary(self, tensor: str) -> bool:
        """Whether a tensor that is held has one row a token."""
        return self._stored(tensor) in self.vocabulary

    def shape(self, tensor: str) -> Shape:
        """The shape of a tensor that is held."""
        return self.shapes[self._stored(tensor) or tensor]

    def copies(self, tensor: str) -> tuple[str, ...]:
        """The names of all stored tensors that are one weight with a tensor; the embedding comes before the head that is tied to it."""
        if (is_head(tensor) or is_embedding(tensor) or tensor == self.embedding) and self.is_tied:
            return tuple(name for name in (self.embedding, self.head) if name is not None)
        return (tensor,) if tensor in self.shapes else ()

    def read(self, tensor: str) -> Tensor:
        """A tensor in its own dtype; the output head of a tied model is its embedding."""
        return self.rows(tensor)[:]

    def rows(self, tensor: str) -> Rows:
        """A tensor that is read by rows, when they are asked for."""
        part = self._part(tensor)
        stored = self.files.rows(part.stored)
        return stored if part.shape == tuple(stored.shape) else stored.part(part.start, part.shape)

    def is_weight(self, tensor: str) -> bool:
        """Whether a tensor that is held is of floating-point numbers."""
        return self.files.is_weight(self._part(tensor).stored)

    def dtype(self, tensor: str) -> torch.dtype:
        """The dtype of a tensor of weights that is held, from the header alone."""
        return DTYPES[self.files.dtype(self._part(tensor).stored)]

    def source(self) -> Source:
        """Hashes of weights and configuration."""
        return self.files.source(self.folder / "config.json")

    @cached_property
    def _transposed(self) -> Mapping[str, bool]:
        """Whether matrices are stored (in, out), by the last word of their modules' names and, under "", of all in the layers."""
        votes: dict[str, Counter[bool]] = defaultdict(Counter)
        for tensor, shape in self.shapes.items():
            module = tensor.removesuffix(".weight")
            bias = self.shapes.get(f"{module}.bias")
            if is_outside(tensor) or len(shape) != 2 or shape[0] == shape[1] or bias is None or len(bias) != 1 or bias[0] not in shape:
                continue
            for key in (module.rpartition(".")[2], ""):
                votes[key][bias[0] == shape[1]] += 1
        return {key: next(iter(found)) for key, found in votes.items() if len(found) == 1}

    def _part(self, tensor: str) -> Part:
        return self.parts[self._stored(tensor) or tensor]

    def _stored(self, tensor: str) -> str | None:
        """The name that a tensor goes by: its own, or that of the one it is tied to, whichever way round."""
        if tensor in self.shapes:
            return tensor
        if is_head(tensor):
            return self.embedding if self.head is None and self.is_tied else None
        if self.embedding is None and self.head is not None and is_embedding(tensor) and self.is_tied:
            return self.head
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
            hint="merge it (merge_and_unload) and save it, or put the adapter_config.json of its adapter beside it",
        )
