"""What lies in a folder that a user names: a checkpoint, an adapter, both, an adapter's weights without its configuration, or neither."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from unmerge.checkpoints.adapter import WEIGHTS
from unmerge.checkpoints.adapter_config import CONFIG, MLX_WEIGHTS
from unmerge.checkpoints.formats import is_image_model, named_format
from unmerge.core.errors import BadInput

MODEL, MODEL_CONFIG = "model", "config.json"
#: what trainers call the folders of their intermediate states
_STATE = re.compile(r"checkpoint-\d+")


@dataclass(frozen=True)
class Contents:
    """Which files a folder holds.

    Attributes:
        folder: looked at.
        adapter, adapter_config: an adapter's weights, and its configuration.
        model, model_config: a checkpoint's.
    """

    folder: Path
    adapter: bool
    adapter_config: bool
    model: bool
    model_config: bool

    @staticmethod
    def of(folder: Path) -> Contents:
        """Look into a folder."""
        return Contents(
            folder,
            adapter=_weights(folder, WEIGHTS) or _weights(folder, MLX_WEIGHTS) or (folder / f"{WEIGHTS}.bin").exists(),
            adapter_config=(folder / CONFIG).exists(),
            model=_weights(folder, MODEL),
            model_config=(folder / MODEL_CONFIG).exists(),
        )

    @property
    def is_vector(self) -> bool:
        """Whether an adapter or a checkpoint lies here, whole or not."""
        return self.adapter or self.adapter_config or self.model_config

    @property
    def is_leftover(self) -> bool:
        """Whether a configuration of an adapter was left beside the weights of a checkpoint alone."""
        return self.adapter_config and not self.adapter and self.model and self.model_config

    @property
    def is_both(self) -> bool:
        """Whether a checkpoint and an adapter lie here."""
        return self.adapter and self.adapter_config and self.model and self.model_config

    def below(self) -> tuple[list[Path], list[Path]]:
        """(adapters in folders below, as PEFT writes several; intermediate states of a training, ``checkpoint-500``)."""
        folders = [path for path in sorted(self.folder.iterdir()) if path.is_dir() and not path.name.startswith(".")]
        vectors = [path for path in folders if Contents.of(path).is_vector]
        states = [path for path in vectors if _STATE.fullmatch(path.name)]
        return [path for path in vectors if path not in states and Contents.of(path).adapter_config], states

    def nothing(self) -> BadInput:
        """The error for a folder that holds neither: what lies there is named where it is known."""
        expected = f"an adapter ({CONFIG}) or a checkpoint ({MODEL_CONFIG})"
        if is_image_model(self.folder):
            return BadInput(
                expected=expected,
                found="a model of diffusers",
                where=self.folder,
                hint="give adapters and checkpoints of a language model",
            )
        if self.model:
            return BadInput(expected=expected, found=f"{MODEL}.safetensors without {MODEL_CONFIG}", where=self.folder, hint="put it there")
        adapters, states = self.below()
        if inside := [path.name for path in (*adapters, *states)]:
            return BadInput(expected=expected, found=f"folders that hold one ({', '.join(inside)})", where=self.folder, hint="name one of them")
        files = sorted(self.folder.iterdir())
        return named_format(files, expected) or BadInput(expected=expected, found="neither", where=self.folder, hint="check the path")


def _weights(folder: Path, stem: str) -> bool:
    return any((folder / f"{stem}.safetensors{ending}").exists() for ending in ("", ".index.json"))
