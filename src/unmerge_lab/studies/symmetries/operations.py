"""Rewrites of a decoder's weights that leave its function as it is, one function each.

They work on models whose tensors are named as Llama's are (Llama, Mistral, Qwen2, Gemma, ...): grouped queries, gated MLPs, RMSNorm, with
biases or without.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

EMBEDDING, HEAD, LAST_NORM = "model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"
#: what each norm of a layer is read by
_READERS = {
    "input_layernorm": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "post_attention_layernorm": ("mlp.gate_proj", "mlp.up_proj"),
}
_WRITERS = ("self_attn.o_proj", "mlp.down_proj")
#: factors are exp(SPREAD x a normal number)
_SPREAD = 0.5


@dataclass(frozen=True)
class Model:
    """Weights with the numbers that they are read by.

    Attributes:
        weights: by name, in float32 or wider; a tied head is not among them.
        layers, heads, groups: how many layers, query heads, and heads of keys and values.
        offset: 1 where norms multiply by 1 + n (Gemma), else 0.
    """

    weights: dict[str, Tensor]
    layers: int
    heads: int
    groups: int
    offset: float = 0.0

    @property
    def width(self) -> int:
        """Channels of a head."""
        return self.weights["model.layers.0.self_attn.k_proj.weight"].shape[0] // self.groups

    def with_rows(self, module: str, order: Tensor | None = None, factors: Tensor | None = None) -> Model:
        """Output channels of a module in another order, then multiplied; its bias with them."""
        made = dict(self.weights)
        for name in (f"{module}.weight", f"{module}.bias"):
            if name in made:
                values = made[name] if order is None else made[name][order]
                made[name] = values if factors is None else values * factors.reshape(-1, *[1] * (values.dim() - 1))
        return replace(self, weights=made)

    def with_columns(self, module: str, order: Tensor | None = None, factors: Tensor | None = None) -> Model:
        """Input channels of a module in another order, then multiplied."""
        name = f"{module}.weight"
        values = self.weights[name] if order is None else self.weights[name][:, order]
        return replace(self, weights=self.weights | {name: values if factors is None else values * factors})


def permute_neurons(model: Model, draw: torch.Generator) -> Model:
    """The neurons of every MLP in another order."""
    for layer in range(model.layers):
        place = f"model.layers.{layer}.mlp"
        order = torch.randperm(model.weights[f"{place}.up_proj.weight"].shape[0], generator=draw)
        model = model.with_rows(f"{place}.gate_proj", order).with_rows(f"{place}.up_proj", order).with_columns(f"{place}.down_proj", order)
    return model


def permute_heads(model: Model, draw: torch.Generator) -> Model:
    """The heads of keys and values in another order, with their query heads, and query heads among themselves."""
    share, channels = model.heads // model.groups, torch.arange(model.width)
    for layer in range(model.layers):
        groups = torch.randperm(model.groups, generator=draw)
        heads = torch.cat([group * share + torch.randperm(share, generator=draw) for group in groups])
        keys, queries = ((order[:, None] * model.width + channels).reshape(-1) for order in (groups, heads))
        place = f"model.layers.{layer}.self_attn"
        model = model.with_rows(f"{place}.q_proj", queries).with_columns(f"{place}.o_proj", queries)
        model = model.with_rows(f"{place}.k_proj", keys).with_rows(f"{place}.v_proj", keys)
    return model


def permute_values(model: Model, draw: torch.Generator) -> Model:
    """The channels of the values within each head in another order."""
    share = model.heads // model.groups
    for layer in range(model.layers):
        inner = [torch.randperm(model.width, generator=draw) for _ in range(model.groups)]
        values = torch.cat([group * model.width + order for group, order in enumerate(inner)])
        outputs = torch.cat([head * model.width + inner[head // share] for head in range(model.heads)])
        place = f"model.layers.{layer}.self_attn"
        model = model.with_rows(f"{place}.v_proj", values).with_columns(f"{place}.o_proj", outputs)
    return model


def rescale_neurons(model: Model, draw: torch.Generator) -> Model:
    """Every neuron's up times a factor, its down over it."""
    for layer in range(model.layers):
        place = f"model.layers.{layer}.mlp"
        factors = _factors(model.weights[f"{place}.up_proj.weight"].shape[0], draw)
        model = model.with_rows(f"{place}.up_proj", factors=factors).with_columns(f"{place}.down_proj", factors=1 / factors)
    return model


def rescale_values(model: Model, draw: torch.Generator) -> Model:
    """Every channel of the values times a factor, the output's columns over it."""
    for layer in range(model.layers):
        place = f"model.layers.{layer}.self_attn"
        factors = _factors(model.groups * model.width, draw)
        model = model.with_rows(f"{place}.v_proj", factors=factors)
        model = model.with_columns(f"{place}.o_proj", factors=1 / _shared(factors, model))
    return model


def rescale_queries(model: Model, draw: torch.Generator) -> Model:
    """Every pair of channels that is rotated together times a factor in the queries, over it in the keys."""
    for layer in range(model.layers):
        place = f"model.layers.{layer}.self_attn"
        pairs = _factors(model.groups * model.width // 2, draw).reshape(model.groups, -1)
        factors = torch.cat([pairs, pairs], dim=1).reshape(-1)
        model = model.with_rows(f"{place}.k_proj", factors=1 / factors).with_rows(f"{place}.q_proj", factors=_shared(factors, model))
    return model


def fold_norms(model: Model, _: torch.Generator | None = None) -> Model:
    """Every norm's weights multiplied into the matrices that read it; a head that was tied gets weights of its own."""
    places = {f"model.layers.{layer}": layer for layer in range(model.layers)}
    for place in places:
        for norm, readers in _READERS.items():
            model = _folded(model, f"{place}.{norm}.weight", [f"{place}.{reader}" for reader in readers])
    head = {} if HEAD in model.weights else {HEAD: model.weights[EMBEDDING]}
    return _folded(replace(model, weights=model.weights | head), LAST_NORM, ["lm_head"])


def permute_stream(model: Model, draw: torch.Generator) -> Model:
    """The dimensions of the residual stream in another order."""
    width = model.weights[EMBEDDING].shape[1]
    order = torch.randperm(width, generator=draw)
    turned = _stream(model, lambda values: values[:, order])
    return replace(turned, weights={name: values[order] if _is_norm(name) else values for name, values in turned.weights.items()})


def rotate_stream(model: Model, draw: torch.Generator) -> Model:
    """The residual stream rotated; norms are folded first."""
    width = model.weights[EMBEDDING].shape[1]
    rotation = torch.linalg.qr(torch.randn(width, width, generator=draw, dtype=torch.float64)).Q
    return _stream(fold_norms(model), lambda values: (values.double() @ rotation).to(values.dtype))


def take_layers(model: Model, order: Sequence[int]) -> Model:
    """The layers in another order, some of them more than once or not at all, as mergekit's passthrough slices give them."""
    weights = {name: values for name, values in model.weights.items() if ".layers." not in name}
    for place, layer in enumerate(order):
        weights |= {
            name.replace(f".layers.{layer}.", f".layers.{place}."): values for name, values in model.weights.items() if f".layers.{layer}." in name
        }
    return replace(model, weights=weights, layers=len(order))


Operation = Callable[[Model, torch.Generator], Model]

OPERATIONS: dict[str, Operation] = {
    "neurons permuted": permute_neurons,
    "heads permuted": permute_heads,
    "values permuted": permute_values,
    "neurons rescaled": rescale_neurons,
    "values rescaled": rescale_values,
    "queries rescaled": rescale_queries,
    "norms folded": fold_norms,
    "stream permuted": permute_stream,
    "stream rotated": rotate_stream,
}
#: several, one after the other
TOGETHER: dict[str, tuple[str, ...]] = {
    "permuted": ("neurons permuted", "heads permuted", "values permuted"),
    "rescaled": ("neurons rescaled", "values rescaled", "queries rescaled"),
    "permuted and rescaled": ("neurons permuted", "heads permuted", "values permuted", "neurons rescaled", "values rescaled", "queries rescaled"),
    "folded, permuted and rescaled": (
        *("norms folded", "neurons permuted", "heads permuted", "values permuted"),
        *("neurons rescaled", "values rescaled", "queries rescaled"),
    ),
    "everything": (
        *("norms folded", "neurons permuted", "heads permuted", "values permuted"),
        *("neurons rescaled", "values rescaled", "queries rescaled", "stream permuted"),
    ),
}


def apply(model: Model, operations: Sequence[str], seed: int = 0) -> Model:
    """A model after some operations, one after the other."""
    draw = torch.Generator().manual_seed(seed)
    for operation in operations:
        model = OPERATIONS[operation](model, draw)
    return model


def _factors(count: int, draw: torch.Generator) -> Tensor:
    return torch.exp(_SPREAD * torch.randn(count, generator=draw))


def _shared(factors: Tensor, model: Model) -> Tensor:
    """Factors of the channels of keys or values, for every query head."""
    return factors.reshape(model.groups, 1, model.width).expand(-1, model.heads // model.groups, -1).reshape(-1)


def _folded(model: Model, norm: str, readers: Sequence[str]) -> Model:
    factors = model.weights[norm] + model.offset
    for reader in readers:
        model = model.with_columns(reader, factors=factors)
    return replace(model, weights=model.weights | {norm: torch.full_like(factors, 1 - model.offset)})


def _stream(model: Model, turned: Callable[[Tensor], Tensor]) -> Model:
    """Every matrix with its side on the residual stream turned."""
    made = dict(model.weights)
    for name, values in model.weights.items():
        module = name.removesuffix(".weight")
        if values.dim() == 2:
            made[name] = turned(values.T).T.contiguous() if module.endswith(_WRITERS) else turned(values)
    return replace(model, weights=made)


def _is_norm(name: str) -> bool:
    return name.endswith("norm.weight")
