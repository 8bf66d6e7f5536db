"""A decomposition under way: directions, optimiser, losses; on disk as safetensors, to go on from."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from unmerge.checkpoints.write import save_tensors
from unmerge.circuits.directions import Directions
from unmerge.core.errors import BadInput
from unmerge.core.records import cannot_write

_MARK = "mark"
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


class State:
    """What an epoch changes.

    Args:
        encoder: V_in; asks for gradients from now on.
        decoder: V_out; likewise.
        learning_rate: Adam's.
    """

    def __init__(self, encoder: Directions, decoder: Directions, learning_rate: float) -> None:
        self.encoder, self.decoder = encoder, decoder
        self.losses: list[Tensor] = []
        sides = {"encoder": encoder, "decoder": decoder}
        self._factors = {f"{side}/{name}": factor for side, directions in sides.items() for name, factor in directions.factors.items()}
        for factor in self._factors.values():
            factor.requires_grad_()
        self.optimizer = torch.optim.Adam(self._factors.values(), lr=learning_rate, fused=True)

    @property
    def epoch(self) -> int:
        """Epochs done."""
        return len(self.losses)

    def save(self, file: Path, mark: str) -> None:
        """Write everything, beside the file first; ``mark`` says which run it belongs to."""
        tensors = {name: factor.detach() for name, factor in self._factors.items()}
        for name, factor in self._factors.items():
            tensors |= {f"{moment}/{name}": self.optimizer.state[factor][moment].float() for moment in _MOMENTS}
        tensors |= {"losses": torch.stack(self.losses), _MARK: torch.tensor(list(mark.encode()), dtype=torch.int64)}
        beside = file.with_name(f".{file.name}")
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            save_tensors(beside, tensors)
            beside.replace(file)
        except OSError as error:
            raise cannot_write(file, error) from error

    def load(self, file: Path, mark: str) -> None:
        """Take up what ``save`` wrote.

        Raises:
            BadInput: a damaged file, or the state of another run.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            tensors = load_file(file)
        except (SafetensorError, OSError) as error:
            raise BadInput(expected="the state of a decomposition", found=str(error), where=file, hint="remove the file to start afresh") from error
        if _MARK not in tensors or bytes(tensors.pop(_MARK).tolist()).decode() != mark:
            raise BadInput(
                expected="the state of this decomposition", found="that of another one", where=file, hint="remove the file, or choose another place"
            )
        self.losses = list(tensors.pop("losses"))
        for name, factor in self._factors.items():
            factor.data.copy_(tensors[name])
            self.optimizer.state[factor] = {moment: tensors[f"{moment}/{name}"] for moment in _MOMENTS}
