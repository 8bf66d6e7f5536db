"""A model as a function of some of its parameters, and the gradients of its divergences: the problem that L3D solves.

    g_i = grad_W D(f(x_i, W), f(x_r, W_0))  at  W = W_0

Several models of one architecture are treated at once, as *runs*: a leading axis of every tensor here. Gradients are
per-sample, by ``torch.func`` (vmap over grad), so that any ``nn.Module`` will do that ``torch.func`` can trace.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from unmerge.circuits.divergences import Divergence, squared_error
from unmerge.core.errors import BadInput, unknown_name

#: by the parameter's name
Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Landscape:
    """Models of one architecture, as functions of chosen parameters.

    Attributes:
        call: (all tensors of one run, one sample) to that sample's output.
        parameters: W_0 by name, each (runs, ...): what may move.
        fixed: the other tensors of the models, likewise.
        divergence: of one sample's output from its reference.
    """

    call: Callable[[Tensors, Tensor], Tensor]
    parameters: Tensors
    fixed: Tensors
    divergence: Divergence = squared_error

    @staticmethod
    def of(models: nn.Module | Sequence[nn.Module], names: Iterable[str] | None = None, divergence: Divergence = squared_error) -> Landscape:
        """The landscape of a model, or of several of one architecture.

        Args:
            models: each takes a batch of one input tensor.
            names: the parameters that may move; None for all that ask for a gradient.
            divergence: of one sample's output from its reference.

        Raises:
            BadInput: a name that is no parameter, or none at all.
        """
        every = [models] if isinstance(models, nn.Module) else list(models)
        shell = every[0]
        own = dict(shell.named_parameters())
        chosen = [name for name, parameter in own.items() if parameter.requires_grad] if names is None else list(names)
        for name in chosen:
            if name not in own:
                raise unknown_name(name, own, "names", expected="a parameter ({})", otherwise="take a name of named_parameters()")
        if not chosen:
            raise BadInput(expected="parameters to move", found="none", where="names", hint="name some, or let them require a gradient")
        stacks = [{**dict(model.named_parameters()), **dict(model.named_buffers())} for model in every]
        together = {name: torch.stack([stack[name].detach() for stack in stacks]) for name in stacks[0]}

        def call(tensors: Tensors, sample: Tensor) -> Tensor:
            output: Tensor = functional_call(shell, tensors, (sample.unsqueeze(0),))
            return output.squeeze(0)

        moving = {name: together[name] for name in chosen}
        return Landscape(call, moving, {name: tensor for name, tensor in together.items() if name not in moving}, divergence)

    @property
    def runs(self) -> int:
        """How many models."""
        return len(next(iter(self.parameters.values())))

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of every parameter, without the axis of runs."""
        return {name: tuple(tensor.shape[1:]) for name, tensor in self.parameters.items()}

    def run(self, run: int) -> Landscape:
        """One of the models."""
        own, fixed = ({name: tensor[run : run + 1] for name, tensor in part.items()} for part in (self.parameters, self.fixed))
        return Landscape(self.call, own, fixed, self.divergence)

    def repeated(self, times: int) -> Landscape:
        """All models, then all again, so many times."""
        own, fixed = ({name: repeated(tensor, times) for name, tensor in part.items()} for part in (self.parameters, self.fixed))
        return Landscape(self.call, own, fixed, self.divergence)

    def outputs(self, x: Tensor, parameters: Tensors | None = None) -> Tensor:
        """f(x, W) of every run.

        Args:
            x: (runs, samples, ...).
            parameters: W; W_0 where it is None.

        Returns:
            (runs, samples, ...).
        """
        with torch.no_grad():
            result: Tensor = vmap(lambda own, samples: vmap(lambda sample: self.call(own, sample))(samples))(
                {**self.fixed, **(parameters or self.parameters)}, x
            )
        return result

    def gradients(self, x: Tensor, references: Tensor) -> Tensors:
        """The per-sample gradients at W_0.

        Args:
            x: (runs, samples, ...).
            references: outputs to compare with, (runs, samples, ...).

        Returns:
            By parameter, (runs, samples, *its shape).
        """

        def divergence(own: Tensors, rest: Tensors, sample: Tensor, reference: Tensor) -> Tensor:
            return self.divergence(self.call({**rest, **own}, sample), reference)

        per_sample = vmap(grad(divergence), (None, None, 0, 0))
        result: Tensors = vmap(per_sample)(self.parameters, self.fixed, x, references)
        return result

    def moved(self, direction: Mapping[str, Tensor], step: Float[Tensor, " runs"] | float, tensors: Iterable[str] | None = None) -> Tensors:
        """W_0 + step x direction.

        Args:
            direction: by parameter, (runs, *its shape).
            step: one for all runs, or one for each.
            tensors: the parameters to move; None for all of the direction's.
        """
        moving = set(direction if tensors is None else tensors)
        steps = torch.as_tensor(step).expand(self.runs)
        return {
            name: tensor + steps.view(-1, *[1] * (tensor.dim() - 1)).to(tensor) * direction[name] if name in moving else tensor
            for name, tensor in self.parameters.items()
        }


def repeated(tensor: Tensor, times: int) -> Tensor:
    """A tensor with its runs repeated, all of them and then all again."""
    return tensor.repeat(times, *[1] * (tensor.dim() - 1))


def squared_norms(gradients: Mapping[str, Tensor]) -> Float[Tensor, "runs samples"]:
    """||g||^2 over all parameters."""
    parts = [gradient.flatten(2).square().sum(-1) for gradient in gradients.values()]
    return torch.stack(parts).sum(0)
