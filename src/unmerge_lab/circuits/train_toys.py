"""Training many toy models of one kind at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.func import functional_call, vmap

from unmerge.circuits.landscape import Landscape, Tensors
from unmerge_lab.circuits.toys import BIAS, DECODER, ENCODER, Autoencoder, Toy

#: inputs to train on, and inputs in a step
INPUTS, BATCH = 10_000, 256
#: share of the steps during which the learning rate rises; then it falls as a cosine
_RISE = 0.05
#: keeps the seeds of models and of data apart
_DATA = 7_919

Watch = Callable[[int, int], None]


@dataclass(frozen=True)
class Trained:
    """Toy models after training.

    Attributes:
        toy: what they are.
        models: the models.
        seeds: theirs.
        errors: mean squared error over the mean square of the target, on inputs of the training set.
        represented: which of them represent every feature, and are trained to the error that is asked for.
    """

    toy: Toy
    models: list[nn.Module]
    seeds: list[int]
    errors: Float[Tensor, " runs"]
    represented: Bool[Tensor, " runs"]

    def inputs(self, count: int) -> Float[Tensor, "runs count inputs"]:
        """The first inputs that each model was trained on."""
        return torch.stack([self.toy.sample(INPUTS, _DATA + seed)[:count] for seed in self.seeds])

    @property
    def landscape(self) -> Landscape:
        """Of all models, in all parameters."""
        return Landscape.of(self.models)

    def chosen(self, count: int) -> Trained:
        """The first ``count`` that represent every feature."""
        places = self.represented.nonzero()[:count, 0].tolist()
        return Trained(
            self.toy, [self.models[place] for place in places], [self.seeds[place] for place in places], self.errors[places], self.represented[places]
        )


def train(toy: Toy, seeds: list[int], watch: Watch | None = None) -> Trained:
    """Train a model for every seed: AdamW on batches of BATCH, the learning rate rising and falling.

    Copies that stand side by side are trained by themselves and put together: seed s has the copies c s, c s + 1, ...

    Args:
        toy: what to train.
        seeds: of initial weights, inputs and target.
        watch: told (steps done, steps in all).
    """
    if toy.copies > 1:
        return _side_by_side(toy, seeds, watch)
    models = []
    for seed in seeds:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            models.append(toy.model())
    x = torch.stack([toy.sample(INPUTS, _DATA + seed) for seed in seeds])
    y = torch.stack([toy.target(own, torch.Generator().manual_seed(seed)) for own, seed in zip(x, seeds, strict=True)])
    parameters = {name: tensor.clone().requires_grad_() for name, tensor in Landscape.of(models).parameters.items()}
    optimizer = torch.optim.AdamW(parameters.values(), lr=toy.learning_rate, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, toy.learning_rate, total_steps=toy.steps, pct_start=_RISE)
    batches = torch.Generator().manual_seed(0)

    def answer(own: Tensors, inputs: Tensor) -> Tensor:
        result: Tensor = functional_call(models[0], own, (inputs,))
        return result

    def held() -> Tensors:
        return parameters | {DECODER: parameters[ENCODER].mT} if toy.tied else parameters

    for step in range(1, toy.steps + 1):
        places = torch.randint(INPUTS, (BATCH,), generator=batches)
        loss = ((vmap(answer)(held(), x[:, places]) - y[:, places]) ** 2).sum() / BATCH
        if toy.price:
            loss = loss + toy.price * parameters[BIAS].sum()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        if watch:
            watch(step, toy.steps)
    for place, model in enumerate(models):
        model.load_state_dict({name: tensor[place].detach() for name, tensor in held().items()})
    with torch.no_grad():
        answers = torch.stack([model(own) for model, own in zip(models, x, strict=True)])
    errors = (answers - y).square().mean((1, 2)) / y.square().mean((1, 2))
    return Trained(toy, models, seeds, errors, _represented(toy, models) & (errors <= toy.most))


def _represented(toy: Toy, models: list[nn.Module]) -> Bool[Tensor, " runs"]:
    """Which models answer to every feature."""
    if not toy.least:
        return torch.ones(len(models), dtype=torch.bool)
    groups = torch.eye(toy.inputs // toy.group).repeat_interleave(toy.group, 1)
    with torch.no_grad():
        return torch.stack([model(groups)[groups > 0].min() for model in models]) >= toy.least


def _side_by_side(toy: Toy, seeds: list[int], watch: Watch | None) -> Trained:
    """Models that are trained apart, as one that is block-diagonal; each run takes the next copies that represent every feature."""
    single = replace(toy, inputs=toy.inputs // toy.copies, copies=1)
    spare = 3  # about two in three represent everything
    apart = train(single, [place + spare * toy.copies * seed for seed in seeds for place in range(spare * toy.copies)], watch)
    models, errors, represented = [], [], []
    for run in range(len(seeds)):
        own = range(run * spare * toy.copies, (run + 1) * spare * toy.copies)
        good = [place for place in own if apart.represented[place]][: toy.copies]
        chosen = good if len(good) == toy.copies else list(own)[: toy.copies]
        models.append(_block_diagonal([apart.models[place] for place in chosen]))
        errors.append(apart.errors[chosen].mean())
        represented.append(len(good) == toy.copies)
    return Trained(toy, models, seeds, torch.stack(errors), torch.tensor(represented))


def _block_diagonal(models: list[nn.Module]) -> nn.Module:
    """One autoencoder made of several."""
    parts = [dict(model.named_parameters()) for model in models]
    joined = {
        name: torch.block_diag(*[part[name] for part in parts])  # type: ignore[no-untyped-call]
        if parts[0][name].dim() == 2
        else torch.cat([part[name] for part in parts])
        for name in parts[0]
    }
    whole = Autoencoder(joined["encoder.weight"].shape[1], joined["encoder.weight"].shape[0])
    whole.load_state_dict({name: tensor.detach() for name, tensor in joined.items()})
    return whole
